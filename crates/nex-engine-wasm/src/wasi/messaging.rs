//! `wasmcloud:messaging`: publish and request; and calls of components that handle messages.

use std::time::Duration;

use bytes::Bytes;
use nex_engine::Call;
use wasmtime::component::{HasSelf, Linker};

use crate::state::State;
use bindings::wasmcloud::messaging::consumer::{BrokerMessage as Message, Host, add_to_linker as add};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/messaging",
        world: "imports",
        imports: { default: async | trappable },
    });
}

mod handler {
    wasmtime::component::bindgen!({
        path: "wit/messaging",
        world: "message-handler",
        exports: { default: async },
    });
}

pub(crate) use handler::MessageHandlerPre;
pub(crate) use handler::wasmcloud::messaging::types::BrokerMessage;

/// The interface that a component exports to be called with messages.
pub(crate) const HANDLER: &str = "wasmcloud:messaging/handler@0.2.0";
/// Where a handler publishes what is to be the reply of its call.
const REPLY_TO: &str = "nex.reply";

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::wasmcloud::messaging::types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    add::<_, HasSelf<_>>(linker, |state| state)
}

impl bindings::wasmcloud::messaging::types::Host for State {}

impl Host for State {
    async fn request(&mut self, subject: String, body: Vec<u8>, timeout_ms: u32) -> wasmtime::Result<Result<Message, String>> {
        let limit = Duration::from_millis(timeout_ms.into());
        let asked = tokio::time::timeout(limit, self.host.messaging("request", &subject, body.into())).await;
        let Ok(answer) = asked else { return Ok(Err(format!("no reply on {subject} within {timeout_ms} ms"))) };
        let message = |body: Bytes| Message { subject, body: body.into(), reply_to: None };
        Ok(answer?.map(message).map_err(|error| error.to_string()))
    }

    async fn publish(&mut self, message: Message) -> wasmtime::Result<Result<(), String>> {
        let Message { subject, body, reply_to: _ } = message;
        if subject == REPLY_TO {
            self.reply(body.into());
            return Ok(Ok(()));
        }
        let published = self.host.messaging("publish", &subject, body.into()).await?;
        Ok(published.map(drop).map_err(|error| error.to_string()))
    }
}

/// The message of a call, as a handler is given it.
pub(crate) fn message_of(call: &Call) -> BrokerMessage {
    BrokerMessage { subject: call.subject.clone(), body: call.payload.to_vec(), reply_to: Some(REPLY_TO.to_owned()) }
}

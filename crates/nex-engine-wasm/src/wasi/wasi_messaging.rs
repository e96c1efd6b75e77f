//! `wasi:messaging`: publish, request and reply by the host service `messaging`; and calls of components that handle its messages.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use nex_engine::Call;
use nex_protocol::agent::invocation::{Headers, canonical_name};
use nex_protocol::host::HostError;
use wasmtime::component::{HasSelf, Linker, Resource};

use crate::state::State;
use bindings::wasi::messaging::types::{self, Error, MetadataError};
use bindings::wasi::messaging::{producer, request_reply};

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/wasi-messaging",
        world: "imports",
        imports: { default: async | trappable },
        with: {
            "wasi:messaging/types.client": super::Client,
            "wasi:messaging/types.message": super::Message,
            "wasi:messaging/request-reply.request-options": super::Options,
        },
    });
}

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod handler {
    wasmtime::component::bindgen!({
        path: "wit/wasi-messaging",
        world: "message-handler",
        exports: { default: async },
        with: { "wasi:messaging/types": super::bindings::wasi::messaging::types },
    });
}

pub(crate) use handler::MessageHandlerPre;

/// The interface that a component exports to be called with messages.
pub(crate) const HANDLER: &str = "wasi:messaging/incoming-handler@0.2.0-draft";
/// The header that is a message's type.
const CONTENT_TYPE: &str = "content-type";
/// Most metadata of a message, and most bytes of it: as many headers as are sent.
const MAX_METADATA: usize = 64;
const MAX_METADATA_BYTES: usize = 16 * 1024;

/// The one connection of a workload.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Client;

/// A message that came, or is to be sent.
#[derive(Default)]
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Message {
    topic: Option<String>,
    data: Bytes,
    /// Its type is one of them.
    headers: Headers,
    /// Whether it is that of the call, which a reply is the reply of.
    is_of_call: bool,
}

/// What is said of a request.
#[derive(Default)]
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Options {
    timeout: Option<Duration>,
    replies: Option<u32>,
}

/// What a host function gives: a trap, or what it was asked for, or why not.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    producer::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    request_reply::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl Message {
    /// The message of a call.
    pub(crate) fn of(call: &Call) -> Self {
        Self { topic: Some(call.subject.clone()), data: call.payload.clone(), headers: call.headers.clone(), is_of_call: true }
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), MetadataError> {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(key));
        headers.push((key.to_owned(), value));
        self.replace(headers)
    }

    fn replace(&mut self, headers: Headers) -> Result<(), MetadataError> {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let is_line = |text: &str| !text.contains(['\r', '\n', '\0']);
        let is_header = |(name, value): &(String, String)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') && is_line(value)
        };
        if headers.len() > MAX_METADATA || bytes > MAX_METADATA_BYTES || !headers.iter().all(is_header) {
            let why = format!("metadata is at most {MAX_METADATA} headers of NATS with {MAX_METADATA_BYTES} bytes");
            return Err(MetadataError::Invalid(Some(why)));
        }
        self.headers = headers;
        Ok(())
    }
}

/// How a handler has failed, for its caller.
pub(crate) fn text_of(error: Error) -> String {
    match error {
        Error::Timeout => "timeout".to_owned(),
        Error::Connection(why) | Error::PermissionDenied(why) | Error::Other(why) => why,
    }
}

/// Calls a handler with a message.
pub(crate) async fn handle(
    store: &mut wasmtime::Store<State>,
    handler: &MessageHandlerPre<State>,
    message: Message,
) -> wasmtime::Result<Result<(), String>> {
    let handler = handler.instantiate_async(&mut *store).await?;
    let message = store.data_mut().table().push(message)?;
    let handled = handler.wasi_messaging_incoming_handler().call_handle(store, message).await?;
    Ok(handled.map_err(text_of))
}

fn refusal(error: HostError) -> Error {
    match error.code {
        403 => Error::PermissionDenied(error.message),
        503 => Error::Connection(error.message),
        504 => Error::Timeout,
        _ => Error::Other(error.to_string()),
    }
}

impl State {
    /// Keeps data of a message, which no memory of the instance counts.
    fn keep(&self, data: Vec<u8>) -> wasmtime::Result<Bytes> {
        let held =
            self.room.hold(data).map_err(|_full| wasmtime::Error::msg("too many messages are held; send or drop them first"));
        Ok(held?.into_bytes())
    }

    fn message(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        let data = self.keep(data)?;
        Ok(self.table().push(Message { data, ..Message::default() })?)
    }
}

impl types::Host for State {}

impl types::HostClient for State {
    /// Every name is that of the workload's connection.
    async fn connect(&mut self, _name: String) -> Answer<Resource<Client>> {
        Ok(Ok(self.table().push(Client)?))
    }

    async fn disconnect(&mut self, _client: Resource<Client>) -> Answer<()> {
        Ok(Ok(()))
    }

    async fn drop(&mut self, client: Resource<Client>) -> wasmtime::Result<()> {
        self.table().delete(client)?;
        Ok(())
    }
}

impl types::HostMessage for State {
    async fn new(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        self.message(data)
    }

    async fn topic(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.table().get(&message)?.topic.clone())
    }

    async fn content_type(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        let headers = &self.table().get(&message)?.headers;
        Ok(headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE)).map(|(_, value)| value.clone()))
    }

    async fn set_content_type(&mut self, message: Resource<Message>, content_type: String) -> wasmtime::Result<Result<(), ()>> {
        let set = self.table().get_mut(&message)?.set(&canonical_name(CONTENT_TYPE), content_type);
        Ok(set.map_err(|_invalid| ()))
    }

    async fn data(&mut self, message: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table().get(&message)?.data.to_vec())
    }

    async fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> wasmtime::Result<()> {
        let data = self.keep(data)?;
        self.table().get_mut(&message)?.data = data;
        Ok(())
    }

    async fn metadata(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<Headers>> {
        let headers = self.table().get(&message)?.headers.clone();
        Ok((!headers.is_empty()).then_some(headers))
    }

    async fn add_metadata(
        &mut self,
        message: Resource<Message>,
        key: String,
        value: String,
    ) -> wasmtime::Result<Result<(), MetadataError>> {
        Ok(self.table().get_mut(&message)?.set(&key, value))
    }

    async fn set_metadata(
        &mut self,
        message: Resource<Message>,
        headers: Headers,
    ) -> wasmtime::Result<Result<(), MetadataError>> {
        Ok(self.table().get_mut(&message)?.replace(headers))
    }

    async fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> wasmtime::Result<Result<(), MetadataError>> {
        self.table().get_mut(&message)?.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&key));
        Ok(Ok(()))
    }

    async fn drop(&mut self, message: Resource<Message>) -> wasmtime::Result<()> {
        self.table().delete(message)?;
        Ok(())
    }
}

impl producer::Host for State {
    async fn send(&mut self, _client: Resource<Client>, topic: String, message: Resource<Message>) -> Answer<()> {
        let Message { data, headers, .. } = self.table().delete(message)?;
        let sent = self.host.messaging_with("publish", &topic, data, headers).await?;
        Ok(sent.map(drop).map_err(refusal))
    }
}

impl request_reply::Host for State {
    async fn request(
        &mut self,
        _client: Resource<Client>,
        topic: String,
        message: Resource<Message>,
        options: Option<Resource<Options>>,
    ) -> Answer<Vec<Resource<Message>>> {
        let Options { timeout, replies } = options.map(|options| self.table().delete(options)).transpose()?.unwrap_or_default();
        let Message { data, headers, .. } = self.table().get(&message)?;
        let (data, headers) = (data.clone(), headers.clone());
        let most = replies.unwrap_or(1).max(1) as usize;
        let method = if most == 1 { "request" } else { "requestMany" };
        let asked = self.host.messaging_with(method, &topic, data, headers);
        let answer = match timeout {
            Some(limit) => tokio::time::timeout(limit, asked).await,
            None => Ok(asked.await),
        };
        let answer = match answer {
            Err(_elapsed) => return Ok(Err(Error::Timeout)),
            Ok(answer) => match answer? {
                Ok(answer) => answer,
                Err(error) => return Ok(Err(refusal(error))),
            },
        };
        let replies = if most == 1 { vec![answer.to_vec()] } else { many(&answer, most) };
        if replies.is_empty() {
            return Ok(Err(Error::Timeout));
        }
        replies.into_iter().map(|data| self.message(data)).collect::<wasmtime::Result<_>>().map(Ok)
    }

    async fn reply(&mut self, to: Resource<Message>, message: Resource<Message>) -> Answer<()> {
        let Message { data, headers, .. } = self.table().delete(message)?;
        if !self.table().get(&to)?.is_of_call {
            return Ok(Err(Error::Other("only the message that the component is called with has a reply".to_owned())));
        }
        if self.answered.is_some() {
            return Ok(Err(Error::Other("a call has one reply".to_owned())));
        }
        self.answered = Some(headers);
        // That of the state, not of the interface.
        State::reply(self, data);
        Ok(Ok(()))
    }
}

/// The replies of `requestMany`, an array of texts in base64.
fn many(answer: &[u8], most: usize) -> Vec<Vec<u8>> {
    let texts: Vec<String> = serde_json::from_slice(answer).unwrap_or_default();
    texts.iter().take(most).filter_map(|text| BASE64.decode(text.as_bytes()).ok()).collect()
}

impl request_reply::HostRequestOptions for State {
    async fn new(&mut self) -> wasmtime::Result<Resource<Options>> {
        Ok(self.table().push(Options::default())?)
    }

    async fn set_timeout_ms(&mut self, options: Resource<Options>, timeout_ms: u32) -> wasmtime::Result<()> {
        self.table().get_mut(&options)?.timeout = Some(Duration::from_millis(timeout_ms.into()));
        Ok(())
    }

    async fn set_expected_replies(&mut self, options: Resource<Options>, expected_replies: u32) -> wasmtime::Result<()> {
        self.table().get_mut(&options)?.replies = Some(expected_replies);
        Ok(())
    }

    async fn drop(&mut self, options: Resource<Options>) -> wasmtime::Result<()> {
        self.table().delete(options)?;
        Ok(())
    }
}

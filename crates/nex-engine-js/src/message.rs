//! The message of the present call beside its payload: its headers, and status and headers of the reply.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use nex_engine::{Call, CallError, HostClient, Reply, Response, Trace};
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::HostRequest;

use crate::value::{Fresh, Scope, Thrown, Value};

#[derive(Default)]
pub(crate) struct Message {
    headers: RefCell<Headers>,
    trace: RefCell<Trace>,
    response: RefCell<Option<Response>>,
    host: RefCell<Option<Arc<dyn HostClient>>>,
}

impl Message {
    /// Begins with the message of a call.
    pub(crate) fn begin(&self, call: &Call) {
        self.trace.replace(Trace::of(&call.headers));
        self.headers.replace(call.headers.clone());
        self.response.replace(None);
        self.host.replace(call.host.clone());
    }

    /// The host services of the call, if it has its own.
    pub(crate) fn host(&self) -> Option<Arc<dyn HostClient>> {
        self.host.borrow().clone()
    }

    /// Adds the call's trace to what is sent.
    pub(crate) fn add_trace(&self, request: &mut HostRequest) {
        self.trace.borrow().add_to(request);
    }

    /// The headers as a JSON array of names and values in turn.
    pub(crate) fn headers<'a>(&self, scope: Scope<'a>) -> Result<Fresh<'a>, Thrown> {
        let flat: Vec<_> = self.headers.borrow().iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect();
        scope.text(&serde_json::to_string(&flat).unwrap_or_default())
    }

    /// `(status, reason, headers)`: the headers as [`Self::headers`] has them.
    pub(crate) fn respond<'a>(&self, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        let [status, reason, headers, ..] = given else { return Ok(scope.undefined()) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to its bounds")]
        let status = scope.to_number(*status)?.clamp(100.0, 599.0) as u16;
        let flat: Vec<String> = serde_json::from_str(&scope.to_text(*headers)?).unwrap_or_default();
        let (pairs, _odd) = flat.as_chunks::<2>();
        let headers: Headers = pairs.iter().map(|[name, value]| (name.clone(), value.clone())).collect();
        let response = Response::new(status, scope.to_text(*reason)?, headers);
        self.response.replace(Some(response.map_err(|error| scope.throw_text(&error.to_string()))?));
        Ok(scope.undefined())
    }

    /// The reply of the call.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the handler answered with a status that is a failure.
    pub(crate) fn finish(&self, payload: Bytes) -> Result<Reply, CallError> {
        match self.response.take() {
            Some(response) => response.reply(payload),
            None => Ok(payload.into()),
        }
    }
}

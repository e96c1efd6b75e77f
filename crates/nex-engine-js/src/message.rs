//! The message of the present call beside its payload: its headers, and status and headers of the reply.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use nex_engine::{Call, CallError, HostClient, Reply, Response, Streaming, Trace};
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::HostRequest;

use crate::value::{Fresh, Scope, Thrown, Value};

#[derive(Default)]
pub(crate) struct Message {
    headers: RefCell<Headers>,
    trace: RefCell<Trace>,
    response: RefCell<Option<Response>>,
    host: RefCell<Option<Arc<dyn HostClient>>>,
    streaming: RefCell<Option<Streaming>>,
}

impl Message {
    /// Begins with the message of a call.
    pub(crate) fn begin(&self, call: &Call) {
        self.trace.replace(Trace::of(&call.headers));
        self.headers.replace(call.headers.clone());
        self.response.replace(None);
        self.host.replace(call.host.clone());
        self.streaming.replace(call.streaming.clone());
    }

    /// Whether the response may be sent piece by piece.
    pub(crate) fn takes_pieces(&self) -> bool {
        self.streaming.borrow().is_some()
    }

    /// Where its pieces go.
    pub(crate) fn streaming(&self) -> Option<Streaming> {
        self.streaming.borrow().clone()
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
        let response = response(scope, given)?;
        self.response.replace(response);
        Ok(scope.undefined())
    }

    /// The same, of a response whose body follows in pieces.
    pub(crate) fn stream<'a>(&self, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        if let (Some(response), Some(streaming)) = (response(scope, given)?, self.streaming()) {
            streaming.begin(response.headers).map_err(|why| scope.throw_text(&why.to_string()))?;
        }
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

/// The head of a response: `(status, reason, headers)`.
fn response<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Option<Response>, Thrown> {
    let [status, reason, headers, ..] = given else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to its bounds")]
    let status = scope.to_number(*status)?.clamp(100.0, 599.0) as u16;
    let flat: Vec<String> = serde_json::from_str(&scope.to_text(*headers)?).unwrap_or_default();
    let (pairs, _odd) = flat.as_chunks::<2>();
    let headers: Headers = pairs.iter().map(|[name, value]| (name.clone(), value.clone())).collect();
    let response = Response::new(status, scope.to_text(*reason)?, headers);
    response.map(Some).map_err(|error| scope.throw_text(&error.to_string()))
}

//! The message of the present call beside its payload: its headers, and status and headers of the reply.

use std::cell::RefCell;

use nex_engine::CallError;
use nex_protocol::agent::invocation::Headers;

use crate::value::{Fresh, Scope, Thrown, Value};

/// Most headers of a reply, and most bytes of their names and values.
const MAX_HEADERS: usize = 128;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The first status that is a failure.
const FIRST_FAILURE: u16 = 400;

#[derive(Debug, Default)]
pub(crate) struct Message {
    headers: RefCell<Headers>,
    response: RefCell<Option<Response>>,
}

/// What a handler of requests answered beside the body.
#[derive(Debug)]
struct Response {
    status: u16,
    reason: String,
    headers: Headers,
}

impl Message {
    /// Begins with the message of a call.
    pub(crate) fn begin(&self, headers: Headers) {
        self.headers.replace(headers);
        self.response.replace(None);
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
        if headers.len() > MAX_HEADERS || flat.iter().map(String::len).sum::<usize>() > MAX_HEADER_BYTES {
            let text = format!("the response has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them");
            return Err(scope.throw_text(&text));
        }
        self.response.replace(Some(Response { status, reason: scope.to_text(*reason)?, headers }));
        Ok(scope.undefined())
    }

    /// The reply's headers.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the handler answered with a status that is a failure; its text is the body, or else the reason.
    pub(crate) fn finish(&self, body: &[u8]) -> Result<Headers, CallError> {
        let Some(Response { status, reason, headers }) = self.response.take() else { return Ok(Headers::new()) };
        if status < FIRST_FAILURE {
            return Ok(headers);
        }
        let message = match body {
            [] if reason.is_empty() => format!("status {status}"),
            [] => reason,
            body => String::from_utf8_lossy(body).into_owned(),
        };
        Err(CallError::Refused { code: status, message })
    }
}

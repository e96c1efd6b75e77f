//! What a handler of requests answers beside the body, whatever the engine, and what becomes of it.

use bytes::Bytes;
use nex_protocol::agent::invocation::{HTTP_STATUS, Headers, Reply};

use crate::function::CallError;

/// Most headers of a reply, and most bytes of their names and values.
const MAX_HEADERS: usize = 128;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The first status that is a failure.
const FIRST_FAILURE: u16 = 400;

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status, 200 to 599.
    pub status: u16,
    /// The text beside the status; often empty.
    pub reason: String,
    /// Its headers.
    pub headers: Headers,
}

/// A response has more headers than are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them")]
pub struct TooManyHeaders;

impl Response {
    /// A head whose headers are within their bounds.
    ///
    /// # Errors
    /// [`TooManyHeaders`]
    pub fn new(status: u16, reason: String, headers: Headers) -> Result<Self, TooManyHeaders> {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        match headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            true => Err(TooManyHeaders),
            false => Ok(Self { status, reason, headers }),
        }
    }

    /// The reply of a call that nobody made by HTTP.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the status is a failure; its text is the body, or else the reason.
    pub fn reply(self, body: Bytes) -> Result<Reply, CallError> {
        let Self { status, reason, headers } = self;
        if status < FIRST_FAILURE {
            return Ok(Reply { payload: body, headers });
        }
        let message = match body.as_ref() {
            [] if reason.is_empty() => format!("status {status}"),
            [] => reason,
            body => String::from_utf8_lossy(body).into_owned(),
        };
        Err(CallError::Refused { code: status, message })
    }

    /// The reply of a call that was a request of HTTP: whoever asked gets the status, whatever it is.
    #[must_use]
    pub fn http_reply(self, body: Bytes) -> Reply {
        let Self { status, reason: _, mut headers } = self;
        headers.push((HTTP_STATUS.to_owned(), status.to_string()));
        Reply { payload: body, headers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, reason: &str) -> Response {
        Response::new(status, reason.to_owned(), vec![("A".to_owned(), "b".to_owned())]).unwrap()
    }

    #[test]
    fn a_failure_is_a_failed_call_but_for_who_asked_by_http() {
        assert_eq!(response(302, "").reply("moved".into()).unwrap().headers.len(), 1);
        for (body, reason, expected) in [("why", "no", "why"), ("", "no", "no"), ("", "", "status 404")] {
            let refused = response(404, reason).reply(body.to_owned().into());
            assert_eq!(refused, Err(CallError::Refused { code: 404, message: expected.to_owned() }));
        }
        let answered = response(404, "").http_reply("gone".into());
        assert_eq!(answered.headers[1], ("Nex-Http-Status".to_owned(), "404".to_owned()));
    }

    #[test]
    fn more_headers_than_are_sent_are_refused() {
        let pair = |size: usize| ("X".to_owned(), "y".repeat(size));
        assert!(Response::new(200, String::new(), vec![pair(1); MAX_HEADERS]).is_ok());
        assert_eq!(Response::new(200, String::new(), vec![pair(1); MAX_HEADERS + 1]), Err(TooManyHeaders));
        assert_eq!(Response::new(200, String::new(), vec![pair(MAX_HEADER_BYTES)]), Err(TooManyHeaders));
    }
}

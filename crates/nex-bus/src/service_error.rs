//! A reply that says no, as NATS micro services write it: two headers, and the whole text as body.

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, HeaderValue, Message};

/// Longest error text in a header, in characters.
const HEADER_CHARS: usize = 1_024;

/// The headers of a failed reply.
#[must_use]
pub fn headers(code: u16, error: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A header is one line of plain text; the body has the whole.
    let line: String = error.chars().map(|c| if c.is_control() { ' ' } else { c }).take(HEADER_CHARS).collect();
    headers.insert(NATS_SERVICE_ERROR, line.as_str());
    headers.insert(NATS_SERVICE_ERROR_CODE, code.to_string().as_str());
    headers
}

/// What a reply says went wrong; nothing if it is a good one.
#[must_use]
pub fn read(message: &Message) -> Option<(u16, String)> {
    let headers = message.headers.as_ref()?;
    let error = headers.get(NATS_SERVICE_ERROR)?.as_str().to_owned();
    let code = headers.get(NATS_SERVICE_ERROR_CODE).map(HeaderValue::as_str).and_then(|code| code.parse().ok());
    Some((code.unwrap_or(500), error))
}

//! Replies of functions: an answer, or a no as NATS micro services write it: two headers, and the whole text as body.

use async_nats::client::PublishErrorKind;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{Client, HeaderMap, HeaderValue, Message};
use nex_protocol::agent::Reply;
use nex_protocol::reply::ReplySubject;

use crate::own_headers::of_function;

/// Longest error text in a header, in characters.
const HEADER_CHARS: usize = 1_024;

/// A reply that the server does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reply of {actual} bytes is over the limit of {limit} bytes")]
pub struct TooLarge {
    /// Its size, bytes.
    pub actual: usize,
    /// The server's limit, bytes.
    pub limit: usize,
}

/// Sends an answer to whoever waits for it, if anybody does.
///
/// # Errors
/// [`TooLarge`]; whoever waits must hear of that. Any other trouble is the connection's, which is told elsewhere.
pub async fn answer(client: &Client, to: Option<ReplySubject>, answer: Reply) -> Result<(), TooLarge> {
    let (Some(to), actual) = (to, answer.payload.len()) else { return Ok(()) };
    let sent = if answer.headers.is_empty() {
        client.publish(String::from(to), answer.payload).await
    } else {
        client.publish_with_headers(String::from(to), of_function(answer.headers), answer.payload).await
    };
    match sent {
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
            Err(TooLarge { actual, limit: client.server_info().max_payload })
        }
        _ => Ok(()),
    }
}

/// Tells whoever waits for an answer that there is none, and why.
pub async fn refuse(client: &Client, to: Option<ReplySubject>, code: u16, error: &str) {
    if let Some(to) = to {
        client.publish_with_headers(String::from(to), headers(code, error), error.to_owned().into()).await.ok();
    }
}

/// The headers of a failed reply.
pub(crate) fn headers(code: u16, error: &str) -> HeaderMap {
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

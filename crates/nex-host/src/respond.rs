//! The answer of a call onto the bus.

use async_nats::{Client, HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use nex_protocol::host::{CODE, HostError, MESSAGE};

use crate::error::refuse;

/// Longest text sent, in characters; some errors quote what they were given.
const MAX_TEXT: usize = 1024;
/// Room left for the headers in a message of the greatest size.
const HEADER_ROOM: usize = 256;

/// Sends the one reply of a call, with code, message and body; does nothing when nobody waits for a reply.
pub async fn respond(bus: &Client, message: &Message, answer: Result<Bytes, HostError>) {
    let Some(reply) = message.reply.clone() else { return };
    let (code, text, body) = match answer.and_then(|body| fitting(bus, body)) {
        Ok(body) => (200, "OK".to_owned(), body),
        Err(error) => (error.code, header_text(&error.message), Bytes::new()),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CODE, HeaderValue::from(u64::from(code)));
    headers.insert(MESSAGE, text);
    if let Err(error) = bus.publish_with_headers(reply, headers, body).await {
        tracing::warn!(subject = %message.subject, %error, "the answer of a host call cannot be sent");
    }
}

fn fitting(bus: &Client, body: Bytes) -> Result<Bytes, HostError> {
    let limit = bus.max_payload().saturating_sub(HEADER_ROOM);
    if body.len() <= limit {
        return Ok(body);
    }
    Err(refuse(413, format!("the answer is {} bytes; a function can be given at most {limit}", body.len())))
}

/// A header ends at its line, so a text in one has none.
fn header_text(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_lines_stays_one_header() {
        assert_eq!(header_text("first\r\nx-nex-hs-code: 200\0"), "first  x-nex-hs-code: 200 ");
        assert_eq!(header_text(&"é".repeat(5000)).chars().count(), MAX_TEXT);
    }
}

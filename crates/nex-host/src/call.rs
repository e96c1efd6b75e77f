//! Who calls a host service, and what was sent to it.

use async_nats::{Client, Message};
use bytes::Bytes;
use nex_bus::denials::Denials;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, WITH};
use nex_protocol::id::{Namespace, WorkloadName};

use crate::error::refuse;

/// Largest body given back: a little under the 8 MB that the internal bus carries in one message.
pub(crate) const MAX_ANSWER: usize = 7 * 1024 * 1024;
/// Most headers that a guest adds to a message or request, and most bytes of them.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Who calls, as the node knows it.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The workload's namespace.
    pub namespace: Namespace,
    /// The workload's name.
    pub workload: WorkloadName,
    /// The connection its services act on.
    pub nats: Client,
    /// What the server does not permit there.
    pub denials: Denials,
    /// Whether the connection is narrower than the node's own. Then it is waited for whether a message may be published.
    pub is_narrow: bool,
}

/// What a guest has sent: a value, a message's payload or a request's body, and the headers to go with it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) body: Bytes,
    pub(crate) headers: Headers,
}

impl Sent {
    /// Reads what a guest has sent.
    ///
    /// # Errors
    /// When its headers are too many or no headers.
    pub(crate) fn read(message: &Message) -> Result<Self, HostError> {
        Ok(Self { body: message.payload.clone(), headers: headers(message)? })
    }
}

/// The headers that a guest adds.
fn headers(message: &Message) -> Result<Headers, HostError> {
    let Some(headers) = &message.headers else { return Ok(Headers::new()) };
    let mut given = Headers::new();
    let mut bytes = 0;
    for line in headers.get_all(WITH) {
        let (name, value) = line.as_str().split_once(": ").ok_or_else(|| refuse(400, "a header is a name and a value"))?;
        bytes += line.as_str().len();
        given.push((name.to_owned(), value.to_owned()));
    }
    if given.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let text =
            format!("{} headers of {bytes} bytes; at most {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes are sent", given.len());
        return Err(refuse(400, text));
    }
    Ok(given)
}

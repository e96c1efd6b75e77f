//! Host services as a guest asks for them: key-value, object store, messaging, HTTP.
//!
//! On the internal bus a request is `hostint.<agent>.host.<service>.<method>`, its target in the header [`TARGET`] and
//! its body raw. Who asks is the agent in the subject, which the credentials enforce; nothing in the request says it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::agent::invocation::Headers;

/// Header that carries what the call is about: the key, the object's name, the subject, the URL.
pub const TARGET: &str = "x-nex-target";
/// Header that carries one header of the message or request to be sent, as `<name>: <value>`; may come more than once.
pub const WITH: &str = "x-nex-with";
/// What a guest says besides of an update of `kv`: the revision that it replaces, as decimal text; 0 where there must be no value.
pub const REVISION: &str = "revision";
/// Header of the reply: decimal status, 200 when it worked.
pub const CODE: &str = "x-nex-hs-code";
/// Header of the reply: what went wrong, for people.
pub const MESSAGE: &str = "x-nex-hs-msg";

/// A host service by its wire name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// `kv`: a key-value bucket of the workload's own.
    KeyValue,
    /// `objectstore`: an object bucket of the workload's own.
    ObjectStore,
    /// `messaging`: publish and request on the workload connection.
    Messaging,
    /// `http`: requests to the outside.
    Http,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::KeyValue, Self::ObjectStore, Self::Messaging, Self::Http];

    /// The name in subjects and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyValue => "kv",
            Self::ObjectStore => "objectstore",
            Self::Messaging => "messaging",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == text)
            .ok_or_else(|| HostError { code: 404, message: format!("no such host service: {text}") })
    }
}

/// One call of a host service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRequest {
    /// Which service.
    pub service: Service,
    /// Which of its methods: `get set delete keys entry update increment`, `get put delete list info`, `publish request`,
    /// `get post put patch delete head`.
    pub method: String,
    /// The key, object name, subject or URL; empty where the method takes none.
    pub target: String,
    /// The value, payload or request body; empty where the method takes none.
    pub body: Bytes,
    /// Headers of the message or HTTP request, and the [`REVISION`] of an update; nothing else has any.
    pub headers: Headers,
}

/// A host service said no. Its text reaches the function as the thrown error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct HostError {
    /// As in HTTP: 400 the caller's fault, 404 not there, 403 not allowed, 500 the host's, 504 too slow.
    pub code: u16,
    /// What went wrong and what to do.
    pub message: String,
}

/// What the service `http` answers, as JSON: the response, its body in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpReply {
    /// The status of the response.
    pub status: u16,
    /// Its headers; a name may have several values.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    body_base64: String,
}

impl HttpReply {
    /// A response.
    #[must_use]
    pub fn new(status: u16, headers: BTreeMap<String, Vec<String>>, body: &[u8]) -> Self {
        Self { status, headers, body_base64: BASE64.encode(body) }
    }

    /// Reads an answer, and the body of the response in it.
    ///
    /// # Errors
    /// A [`HostError`] of 500 when it is none.
    pub fn read(answer: &[u8]) -> Result<(Self, Vec<u8>), HostError> {
        let damaged =
            |why: &dyn fmt::Display| HostError { code: 500, message: format!("reply of the http service is damaged: {why}") };
        let mut reply: Self = serde_json::from_slice(answer).map_err(|error| damaged(&error))?;
        let body = BASE64.decode(std::mem::take(&mut reply.body_base64).as_bytes()).map_err(|error| damaged(&error))?;
        Ok((reply, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let headers = BTreeMap::from([("Set-Cookie".to_owned(), vec!["a=1".to_owned(), "b=2".to_owned()])]);
        let written = serde_json::to_vec(&HttpReply::new(404, headers.clone(), b"\0\xff")).unwrap();
        let (reply, body) = HttpReply::read(&written).unwrap();
        assert_eq!((reply.status, reply.headers, body.as_slice()), (404, headers, &b"\0\xff"[..]));
        for damaged in [&b"{"[..], br#"{"headers":{}}"#, br#"{"status":70000}"#, br#"{"status":200,"body_base64":"*"}"#] {
            assert_eq!(HttpReply::read(damaged).unwrap_err().code, 500);
        }
    }
}

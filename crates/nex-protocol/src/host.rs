//! Host services as a guest asks for them: key-value, object store, messaging, HTTP.
//!
//! On the internal bus a request is `hostint.<agent>.host.<service>.<method>`, its target in the header [`TARGET`] and
//! its body raw. Who asks is the agent in the subject, which the credentials enforce; nothing in the request says it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::agent::invocation::Headers;

/// Header that carries what the call is about: the key, the object's name, the subject, the URL.
pub const TARGET: &str = "x-nex-target";
/// Header that carries one header of the message or request to be sent, as `<name>: <value>`; may come more than once.
pub const WITH: &str = "x-nex-with";
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
    /// Which of its methods: `get set delete keys`, `get put delete list`, `publish request`, `get post put patch delete head`.
    pub method: String,
    /// The key, object name, subject or URL; empty where the method takes none.
    pub target: String,
    /// The value, payload or request body; empty where the method takes none.
    pub body: Bytes,
    /// Headers of the message or HTTP request; nothing else has any.
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

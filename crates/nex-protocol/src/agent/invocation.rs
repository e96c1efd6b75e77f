//! One call of a function: an envelope whatever the trigger, and its outcome. As NATS messages they are read and written in `nex-bus`.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::replay::Replay;

/// Prefix of the headers that are the envelope's; a caller's own headers with this prefix are not passed on, save [`HTTP_PREFIX`].
pub const RESERVED_PREFIX: &str = "Nex-";
/// Prefix of a caller's headers that say which HTTP request its message stands for: `Nex-Http-Method`, `Nex-Http-Path`.
pub const HTTP_PREFIX: &str = "Nex-Http-";
/// Header of a caller: the method of the request.
pub const HTTP_METHOD: &str = "Nex-Http-Method";
/// Header of a caller: the path of the request, and its query.
pub const HTTP_PATH: &str = "Nex-Http-Path";
/// Header of a caller that has the request by HTTP: `http` or `https`.
pub const HTTP_SCHEME: &str = "Nex-Http-Scheme";
/// Header of a reply: decimal status of the response.
pub const HTTP_STATUS: &str = "Nex-Http-Status";
/// Header: [`TriggerKind`].
pub const TRIGGER: &str = "Nex-Trigger";
/// Header: the concrete subject of the call.
pub const SUBJECT: &str = "Nex-Subject";
/// Header: time left for the call, decimal ms.
pub const DEADLINE_MS: &str = "Nex-Deadline-Ms";
/// Header: decimal number of the attempt, from 1.
pub const ATTEMPT: &str = "Nex-Attempt";
/// Header: the host calls are recorded, and the outcome of a call that failed has them.
pub const RECORD: &str = "Nex-Record";
/// Header: JSON of a [`Replay`] that answers the host calls; every outcome has them.
pub const REPLAY: &str = "Nex-Replay";
/// Header of an outcome: JSON of the [`Record`](crate::replay::Record) of the host calls, where it was asked for.
pub const CALLS: &str = "Nex-Calls";
/// Header of the caller: W3C trace context, passed on as it is.
pub const TRACEPARENT: &str = "traceparent";
/// Header of the caller: what tracing systems add to it.
pub const TRACESTATE: &str = "tracestate";
/// Header of the outcome: `reply`, `ack`, `nak`, `term` or `error`.
pub const OUTCOME: &str = "Nex-Outcome";
/// [`OUTCOME`] of a head whose body is to be pulled ([`super::streaming`]).
pub const STREAMED: &str = "stream";
/// Header of a `nak`: decimal ms until the next attempt.
pub const DELAY_MS: &str = "Nex-Delay-Ms";
/// Header of an `error`: the [`Limit`] that was reached, if one was.
pub const LIMIT: &str = "Nex-Limit";
/// Header of every outcome: decimal nanoseconds spent in the function.
pub const RUNTIME_NS: &str = "Nex-Runtime-Ns";

/// What started a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// A message on a subject; its reply subject gets the outcome.
    Subject,
    /// A message of a JetStream stream.
    Stream,
    /// A clock.
    Schedule,
    /// An HTTP request.
    Http,
}

impl TriggerKind {
    const ALL: [Self; 4] = [Self::Subject, Self::Stream, Self::Schedule, Self::Http];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Stream => "stream",
            Self::Schedule => "schedule",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for TriggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names none of the known things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known {0}")]
pub struct Unknown(&'static str);

impl FromStr for TriggerKind {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(Unknown("trigger kind"))
    }
}

/// The head of a call; its payload and the caller's headers travel as the message's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What started it.
    pub trigger: TriggerKind,
    /// The concrete subject.
    pub subject: String,
    /// Time left, ms.
    pub deadline_ms: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How its host calls are made.
    pub host_calls: HostCalls,
}

/// How the host calls of a call are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostCalls {
    /// By the node.
    #[default]
    Live,
    /// By the node, and told where the call failed.
    Recorded,
    /// From a record, and told.
    Replayed(Replay),
}

/// A bound that a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `call_timeout_ms`, or the deadline of the invocation.
    Time,
    /// `memory_bytes`
    Memory,
    /// `reply_bytes`
    Reply,
    /// `payload_bytes`
    Payload,
    /// `host_calls`
    HostCalls,
    /// `log_bytes`
    Log,
    /// `cpu_ms`
    Cpu,
}

impl Limit {
    const ALL: [Self; 7] = [Self::Time, Self::Memory, Self::Reply, Self::Payload, Self::HostCalls, Self::Log, Self::Cpu];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Reply => "reply",
            Self::Payload => "payload",
            Self::HostCalls => "host_calls",
            Self::Log => "log",
            Self::Cpu => "cpu",
        }
    }
}

impl FromStr for Limit {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|limit| limit.as_str() == text).ok_or(Unknown("limit"))
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvocationError {
    /// As in HTTP: 404 no such instance, 500 the function's, 504 too slow.
    pub code: u16,
    /// For the caller.
    pub message: String,
    /// The limit that was reached, if one was.
    pub limit: Option<Limit>,
}

/// Name and value of headers, in their order; a name may come more than once.
pub type Headers = Vec<(String, String)>;

/// What a function answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The body.
    pub payload: Bytes,
    /// Headers of the function's own.
    pub headers: Headers,
}

impl<T: Into<Bytes>> From<T> for Reply {
    fn from(payload: T) -> Self {
        Self { payload: payload.into(), headers: Headers::new() }
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A reply; it acknowledges what is to be acknowledged.
    Reply(Reply),
    /// Done, with nothing to say.
    Ack,
    /// Try again later.
    Nak {
        /// Not before, ms.
        delay_ms: u64,
    },
    /// Never try this again.
    Terminate {
        /// Why.
        reason: String,
    },
    /// It failed.
    Error(InvocationError),
}

/// The name of a header as it is written in messages: `content-type` as `Content-Type`, the form functions know from 0.2.7.
#[must_use]
pub fn canonical_name(name: &str) -> String {
    let mut start = true;
    let upper = |letter: char| {
        let letter = if start { letter.to_ascii_uppercase() } else { letter };
        start = letter == '-';
        letter
    };
    name.chars().map(upper).collect()
}

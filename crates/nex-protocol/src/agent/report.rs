//! What an agent reports of an instance. Lifecycle events are lossless: numbered, acknowledged, sent again until they are, in order.
//! Logs are lossy: bounded in bytes, with a count of what was lost; what was sent is sent again until it is taken.

use serde::{Deserialize, Serialize};

/// Header of an event: its decimal number among the agent's events, rising. Of log lines: the number of the message among the instance's.
pub const SEQUENCE: &str = "Nex-Sequence";
/// Errors told one by one in a report of calls; the count tells of all.
pub const MAX_ERRORS: usize = 20;

/// Agent → node, a request on `hostint.<agent>.event.<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The service ended by itself.
    Exited {
        /// Its exit code, -1 for a signal.
        code: i32,
        /// For people.
        message: String,
    },
    /// What its health check found: that it works, for the first time or again, or that it is sick.
    Health {
        /// Whether it works.
        healthy: bool,
        /// What the last failure was, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// A call of it is long past its deadline and does not end, also not where it is interrupted: nothing but the end of the agent ends it.
    Stuck {
        /// For people.
        message: String,
    },
    /// It was undeployed: all that is said of it was said before.
    Stopped,
    /// Calls served on the agent's own subscriptions of one trigger since the last report.
    Calls {
        /// The subscribed subject.
        trigger: String,
        /// How many ended well.
        succeeded: u64,
        /// How many failed.
        failed: u64,
        /// Nanoseconds those that ended well took together.
        elapsed_nanos: u64,
        /// What the first [`MAX_ERRORS`] failures were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<String>,
    },
}

/// Answer to an event: it is the node's concern from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// The number of the event.
    pub sequence: u64,
}

/// Agent → node, a request on `hostint.<agent>.log.<instance>`: lines in the order they were written. The answer is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logs {
    /// The lines.
    pub lines: Vec<LogEntry>,
    /// Lines lost before these because nobody could keep up.
    #[serde(default)]
    pub dropped: u64,
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogEntry {
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// The line.
    pub text: String,
}

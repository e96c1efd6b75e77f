//! What others may tell a workload's driver, and what they see of it.

use std::sync::Arc;
use std::time::Duration;

use nex_protocol::control::ExitCause;
use tokio::sync::oneshot;

use super::launch_error::LaunchError;
use super::state::Phase;

/// What others see of a workload's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// How often it was started again.
    pub restarts: u32,
    /// How it last ended, if it did: by itself, or with its agent.
    pub last_end: Option<Arc<LastEnd>>,
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEnd {
    /// Why, by name.
    pub cause: ExitCause,
    /// Its code; -1 where it had none.
    pub code: i32,
    /// The signal that ended it, how its agent was lost, or why it is sick; may be empty.
    pub message: String,
    /// How long it had run.
    pub ran: Duration,
    /// When, seconds since 1970.
    pub at: i64,
}

impl LastEnd {
    /// What became of it, as part of a sentence.
    #[must_use]
    pub fn how(&self) -> String {
        match (self.code, self.message.as_str()) {
            (-1, message) if !message.is_empty() => message.to_owned(),
            (code, "") => format!("it ended with exit code {code}"),
            (code, message) => format!("it ended with exit code {code} ({message})"),
        }
    }
}

/// What others may tell a workload.
#[derive(Debug)]
pub enum Command {
    /// Stop; the sender hears when nothing is left.
    Stop {
        /// Why, for the event.
        reason: String,
        /// The same by name.
        cause: ExitCause,
        /// The time it has to end in order.
        grace: Duration,
        /// Dropped or used when it is done.
        done: oneshot::Sender<()>,
    },
    /// The node drains: no more restarts.
    LameDuck,
    /// Start another instance in the place of the one that runs.
    Renew {
        /// Whether the old one runs until the new one does.
        overlaps: bool,
        /// Dropped when the new one runs, or was not started.
        done: oneshot::Sender<()>,
    },
}

/// How the first start went.
pub type FirstStart = Result<(), LaunchError>;

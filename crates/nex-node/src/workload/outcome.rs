//! What comes of an instance, and what the world is told of it.

use std::time::Duration;

use nex_protocol::control::ExitCause;
use nex_protocol::id::AgentId;

use super::launch_error::LaunchError;
use crate::journal::JournalError;

/// What an instance came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It ended by itself.
    Exited {
        /// Why, by name.
        cause: ExitCause,
        /// Its code.
        code: i32,
        /// The signal that ended it; empty if none did.
        signal: String,
        /// What the world is told of it.
        message: String,
    },
    /// It ended with its agent.
    AgentLost {
        /// Why, by name.
        cause: ExitCause,
        /// Which.
        agent: AgentId,
        /// How it was lost.
        reason: String,
    },
    /// Its health check passes.
    Healthy,
    /// Its health check fails again and again.
    Sick(String),
}

/// What the world is told of a workload.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// An instance of it was started.
    Started,
    /// It runs.
    Deployed,
    /// It runs on, though the process that started it is gone.
    Adopted,
    /// It has to be started anew.
    NotAdopted(&'a LaunchError),
    /// It could not be started.
    StartFailed(&'a LaunchError),
    /// Its agent was lost.
    AgentLost {
        /// Which, if one was.
        agent: &'a AgentId,
        /// How.
        reason: &'a str,
    },
    /// It is started again after a pause.
    Restarting {
        /// How it ended.
        end: &'a End,
        /// After how long.
        pause: Duration,
    },
    /// The journal did not take it.
    NotRecorded(&'a JournalError),
    /// Its health check fails, or never passed.
    Sick(&'a str),
    /// It is over.
    Undeployed(&'a End),
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A start.
    pub deploy: Duration,
    /// A workload's own end.
    pub stop_grace: Duration,
    /// The first pass of its health check; nothing where it has none.
    pub health: Duration,
    /// All of it, from now on; a job may have a deadline.
    pub life: Option<Duration>,
}

/// Why a workload is over, for its event.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// By name.
    pub cause: ExitCause,
    /// Its exit code.
    pub code: i32,
    /// For people.
    pub reason: String,
}

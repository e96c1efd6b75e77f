//! What a driver acts by, what comes of an instance, and what the world is told of it.

use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::Deadline;
use nex_protocol::control::ExitCause;
use nex_protocol::id::AgentId;

use super::launch_error::LaunchError;
use crate::journal::{JournalError, LifeRecord};

/// What carries out a driver's effects: the node's, or that of the simulation.
pub trait Runtime: Send + 'static {
    /// An instance that runs; dropping it kills it.
    type Instance: Send + 'static;

    /// Takes over the instance that an earlier process started; where that cannot be, it is ended and nothing is left of it.
    /// Also says how long it has been running.
    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<(Self::Instance, Duration), LaunchError>>;
    /// Finds an agent and has it start the workload.
    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<Self::Instance, LaunchError>>;
    /// Writes the workload into the journal, with the instance that runs it, or with none while it is to be started again.
    fn record(&mut self, instance: Option<&Self::Instance>, life: LifeRecord) -> BoxFuture<'static, Result<(), JournalError>>;
    /// Waits for what an instance comes to: its end, or news of its health; meanwhile passes on what it reports.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    fn watch<'a>(&'a mut self, instance: &'a mut Self::Instance) -> BoxFuture<'a, Seen>;
    /// Has the agent stop it, in order, within a grace; nothing is left of it then.
    fn undeploy(&self, instance: Self::Instance, grace: Duration) -> BoxFuture<'static, ()>;
    /// Lets go of an instance that has ended, in the background.
    fn release(&self, instance: Self::Instance);
    /// Tells the world. Never waits.
    fn tell(&mut self, notice: &Notice<'_>);
    /// Forgets the workload: the registry, its connections, the journal. Where the world is to hear how it ended, the journal has that
    /// instead when this is done, until it was told.
    fn forget(&mut self, end: Option<&End>) -> BoxFuture<'static, ()>;
}

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

//! A workload on this node: [`state`] decides, [`driver`] owns the agent and acts, [`Workload`] is the handle.

pub mod driver;
pub mod spec;
pub mod state;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_protocol::control::{self, Machine, MachineWorkload, WorkloadSummary};
use nex_protocol::envelope::Failure;
use tokio::sync::{mpsc, oneshot, watch};

use crate::trigger::Counters;
use spec::WorkloadSpec;
use state::Phase;

/// What others see of a workload's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// How often it was started again.
    pub restarts: u32,
}

/// What others may tell a workload.
#[derive(Debug)]
pub enum Command {
    /// Stop; the sender hears when nothing is left.
    Stop {
        /// Why, for the event.
        reason: &'static str,
        /// Dropped or used when it is done.
        done: oneshot::Sender<()>,
    },
    /// The node drains: no more restarts.
    LameDuck,
}

/// Handle of a workload.
pub struct Workload {
    /// What it is.
    pub spec: Arc<WorkloadSpec>,
    /// What it has done.
    pub counters: Arc<Counters>,
    began: Instant,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").field("spec", &self.spec).field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// How the first start went.
pub type FirstStart = Result<(), Failure>;

impl Workload {
    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Stops it and waits until nothing is left of it.
    pub async fn stop(&self, reason: &'static str) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Stop { reason, done }).await.is_ok() {
            wait.await.ok();
        }
    }

    /// No more restarts from now on.
    pub async fn lame_duck(&self) {
        self.commands.send(Command::LameDuck).await.ok();
    }

    /// Its line in an answer to WPING.
    #[must_use]
    pub fn summary(&self) -> WorkloadSummary {
        let status = self.status();
        WorkloadSummary {
            id: self.spec.id.to_string(),
            namespace: self.spec.namespace.to_string(),
            name: self.spec.name.to_string(),
            r#type: self.spec.kind.to_string(),
            uptime: control::uptime(self.began.elapsed()),
            state: status.phase.as_str().to_owned(),
            restarts: status.restarts,
            triggers: self.spec.triggers.clone(),
        }
    }

    /// Its entry in an answer to INFO.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let uptime = control::uptime(self.began.elapsed());
        let in_calls = || control::runtime(Duration::from_nanos(self.counters.nanos.load(std::sync::atomic::Ordering::Relaxed)));
        Machine {
            id: self.spec.id.to_string(),
            healthy: self.status().phase == Phase::Running,
            namespace: self.spec.namespace.to_string(),
            workload: MachineWorkload {
                name: self.spec.name.to_string(),
                description: self.spec.description.clone(),
                runtime: if self.spec.kind.is_function() { in_calls() } else { uptime.clone() },
                r#type: self.spec.kind.to_string(),
                hash: self.spec.artifact.digest.to_string(),
            },
            uptime,
        }
    }
}

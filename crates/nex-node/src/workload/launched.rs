//! An instance that runs, on an agent of its own or on a seat among others, and what an earlier process left running.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use nex_process::TaskScope;
use nex_protocol::deploy::StopSignal;
use nex_protocol::digest::Digest;
use nex_protocol::id::SecretName;
use nex_sandbox::{Sandbox, SandboxId};

use super::spec::WorkloadSpec;
use crate::agents::{Instance, LeftSeat, Seat};
use crate::clock;
use crate::journal::RunningRecord;

/// Time an agent has to end.
pub(super) const AGENT_GRACE: Duration = Duration::from_millis(500);
/// Time to answer calls whose agent is dead.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// An instance that runs.
#[derive(Debug)]
pub struct Launched {
    /// The instance.
    pub instance: Instance,
    /// Its seat, where others share its agent.
    pub(super) seat: Option<Seat>,
    /// What the node does for its triggers: the relay's subscriptions, and those that keep their messages.
    pub(super) triggers: Vec<TaskScope>,
    /// Of what the agent subscribed by itself.
    pub(super) direct: Option<Digest>,
    /// When it was started, seconds since 1970.
    pub(super) since: i64,
    /// The versions of its secrets that it was started with.
    pub(super) secrets: BTreeMap<SecretName, u64>,
}

/// An agent that an earlier process left running with an instance of a workload; dropped, it is ended.
pub struct LeftRunning {
    /// Where it lives.
    pub home: LeftHome,
    /// What the journal has of it.
    pub running: RunningRecord,
}

/// Where an instance that was left running lives.
pub enum LeftHome {
    /// In a sandbox of its own.
    Own(Box<dyn Sandbox>),
    /// On an agent with others.
    Shared(LeftSeat),
}

impl std::fmt::Debug for LeftHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeftHome").field(self.sandbox_id()).finish()
    }
}

impl LeftHome {
    /// Name of the sandbox.
    #[must_use]
    pub fn sandbox_id(&self) -> &SandboxId {
        match self {
            Self::Own(sandbox) => sandbox.id(),
            Self::Shared(seat) => seat.agent.sandbox_id(),
        }
    }
}

impl std::fmt::Debug for LeftRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeftRunning").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Launched {
    /// What the journal keeps of it.
    #[must_use]
    pub fn record(&self) -> RunningRecord {
        let agent = self.instance.agent().record().clone();
        let (instance, is_shared) = (self.instance.id().clone(), self.seat.is_some());
        let (direct, since, secrets) = (self.direct, self.since, self.secrets.clone());
        RunningRecord { agent, instance, is_shared, direct, since, secrets }
    }

    /// Ends it in order: triggers first, so no call is taken that cannot be answered, then the instance.
    pub async fn undeploy(&mut self, grace: Duration, signal: Option<StopSignal>) {
        self.end_triggers(grace.max(LAST_ANSWERS)).await;
        self.instance.undeploy(grace, signal).await;
    }

    /// How long it has been running.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_secs(u64::try_from(clock::unix_seconds().saturating_sub(self.since)).unwrap_or_default())
    }

    /// Ends its agent, or gives its seat back; calls under way only need to hear that it is gone.
    pub async fn end(mut self) {
        self.end_triggers(LAST_ANSWERS).await;
        match self.seat.take() {
            Some(seat) => seat.leave().await,
            None => self.instance.agent().end(AGENT_GRACE).await,
        }
    }

    /// Whether others have its agent, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.seat.is_some()
    }

    /// A call of it does not end: a shared agent is given up, for the reason that is given back.
    #[must_use]
    pub fn give_up(&self, spec: &WorkloadSpec, why: &str) -> String {
        let why = format!("a call of {} ({}) does not end: {why}", spec.name, spec.id);
        if let Some(seat) = &self.seat {
            seat.give_up(&spec.id, why.clone());
        }
        why
    }

    async fn end_triggers(&mut self, grace: Duration) {
        let triggers = std::mem::take(&mut self.triggers);
        join_all(triggers.iter().map(|scope| scope.shutdown(grace))).await;
    }
}

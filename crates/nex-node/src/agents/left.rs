//! A shared agent that an earlier process of the node left, with the instances that the journal knows of.
//!
//! What of it is not claimed by a workload, because the journal forgot it or the configuration does not admit it any more, is ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nex_process::Deadline;
use nex_protocol::id::InstanceId;
use nex_sandbox::{Sandbox, SandboxId};
use tokio::sync::OnceCell;

use super::agent::{Agent, AgentLost};
use super::instance;

/// The agent. Dropping the last handle kills and removes the sandbox.
pub struct LeftAgent {
    sandbox: Arc<dyn Sandbox>,
    claimed: Mutex<BTreeSet<InstanceId>>,
    /// What it answered that it has, once it was asked.
    has: OnceCell<Result<BTreeSet<InstanceId>, AgentLost>>,
}

impl std::fmt::Debug for LeftAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeftAgent").field("sandbox", self.sandbox.id()).finish_non_exhaustive()
    }
}

/// A workload's claim on its instance there; dropped before it is made good, the instance is ended with all that nobody claims.
#[derive(Debug)]
pub struct LeftSeat {
    /// The agent.
    pub agent: Arc<LeftAgent>,
    instance: InstanceId,
    is_taken: bool,
}

impl LeftAgent {
    /// An agent in this sandbox, of which nothing is claimed yet.
    #[must_use]
    pub fn new(sandbox: Box<dyn Sandbox>) -> Arc<Self> {
        Arc::new(Self { sandbox: Arc::from(sandbox), claimed: Mutex::default(), has: OnceCell::new() })
    }

    /// Claims an instance of it.
    #[must_use]
    pub fn claim(self: &Arc<Self>, instance: &InstanceId) -> LeftSeat {
        self.claimed().insert(instance.clone());
        LeftSeat { agent: Arc::clone(self), instance: instance.clone(), is_taken: false }
    }

    /// Name of where it lives.
    #[must_use]
    pub fn sandbox_id(&self) -> &SandboxId {
        self.sandbox.id()
    }

    /// Where it lives.
    pub(super) fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// What is claimed now.
    pub(super) fn claims(&self) -> BTreeSet<InstanceId> {
        self.claimed().clone()
    }

    /// Waits until the agent answers, ends what nobody claims there, and says whether an instance is there still.
    ///
    /// # Errors
    /// [`AgentLost`], where it does not answer.
    pub async fn has(&self, agent: &Agent, instance: &InstanceId, by: Deadline) -> Result<bool, AgentLost> {
        let ask = || async {
            let has = instance::ids(agent, by).await?;
            let claims = self.claims();
            for stray in has.difference(&claims) {
                tracing::warn!(agent_id = %agent.id(), instance_id = %stray, "an instance that nobody knows is ended");
                instance::undeploy(agent, stray, Duration::ZERO, None).await;
            }
            Ok(has)
        };
        self.has.get_or_init(ask).await.as_ref().map(|has| has.contains(instance)).map_err(Clone::clone)
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeSet<InstanceId>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeftSeat {
    /// The claim is made good: whoever calls this owns the instance.
    pub(super) fn take(mut self) -> Arc<LeftAgent> {
        self.is_taken = true;
        Arc::clone(&self.agent)
    }
}

impl Drop for LeftSeat {
    fn drop(&mut self) {
        if !self.is_taken {
            self.agent.claimed().remove(&self.instance);
        }
    }
}

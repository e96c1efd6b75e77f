//! An agent after its handshake: where it lives, what it can do, and how the node notices that it is gone. Shared by its instances.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Request};
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::{Handshake, subject};
use nex_protocol::id::{AgentId, InstanceId};
use nex_sandbox::{AttachError, Sandbox};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::instance::Instance;
use super::router::AgentRouter;

/// Time between two pings of an agent.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Misses in a row that make an agent lost; a guest that is merely busy answers one of them.
const MAX_MISSES: u32 = 3;
/// Longest time from an agent's death until the node knows of it.
const DEATH_NOTICE: Duration = Duration::from_secs(1);

/// Why an agent is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AgentLost(pub String);

/// An agent as the journal has it: with its sandbox, all that is needed to talk to it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Its id.
    pub id: AgentId,
    /// What it said of itself.
    pub handshake: Handshake,
}

/// An agent and the sandbox it lives in. Dropping the last handle kills and removes the sandbox.
pub struct Agent {
    record: AgentRecord,
    bus: Client,
    sandbox: Arc<dyn Sandbox>,
    router: AgentRouter,
    lost: watch::Receiver<Option<AgentLost>>,
    _watch: TaskScope,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("id", &self.record.id).finish_non_exhaustive()
    }
}

impl Agent {
    /// Begins to watch an agent that has shaken hands, now or with an earlier process.
    #[must_use]
    pub fn new(record: AgentRecord, sandbox: Arc<dyn Sandbox>, bus: Client, router: AgentRouter, ping_timeout: Duration) -> Self {
        let (tell, lost) = watch::channel(None);
        let watching = TaskScope::new("agent watch");
        let (pinged, watched) = (bus.clone(), Arc::clone(&sandbox));
        let ping = subject::ping(&record.id);
        watching.spawn("agent watch", async move {
            let why = tokio::select! {
                exit = watched.exited() => format!("the agent's sandbox ended: {exit}"),
                () = unanswered(&pinged, &ping, ping_timeout) => format!("the agent did not answer {MAX_MISSES} pings in a row"),
            };
            tell.send_replace(Some(AgentLost(why)));
        });
        Self { record, bus, sandbox, router, lost, _watch: watching }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.record.id
    }

    /// What the journal keeps of it.
    #[must_use]
    pub fn record(&self) -> &AgentRecord {
        &self.record
    }

    /// What it said of itself.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.record.handshake
    }

    /// The internal bus.
    pub(super) fn bus(&self) -> &Client {
        &self.bus
    }

    /// Begins to listen to an instance of this agent, which need not be there yet.
    #[must_use]
    pub fn instance(self: &Arc<Self>, id: InstanceId) -> Instance {
        let inbox = self.router.open(self.id(), &id);
        Instance::new(Arc::clone(self), id, inbox)
    }

    /// Stops to listen to an instance.
    pub(super) fn close(&self, instance: &InstanceId) {
        self.router.close(self.id(), instance);
    }

    /// Whether the agent is of no use any more, asked because it did not answer: the bus misses a dead agent before its sandbox
    /// is seen to end, so that is waited for.
    pub async fn is_lost(&self, by: Deadline) -> bool {
        by.within(DEATH_NOTICE).bound(self.lost()).await.is_ok()
    }

    /// Ends when the agent is of no use any more, and says why.
    pub fn lost(&self) -> impl Future<Output = AgentLost> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            match lost.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_else(|| AgentLost(String::new())),
                Err(_closed) => AgentLost("the node let go of the agent".to_owned()),
            }
        }
    }

    /// Brings a file into the sandbox, read-only; gives its path as the agent sees it.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach_file(&self, file: &Path, name: &str) -> Result<String, AttachError> {
        Ok(self.sandbox.attach_file(file, name).await?.to_string_lossy().into_owned())
    }

    /// Leaves the agent its bus and its NATS servers, where it has a network of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn restrict_network(&self) -> Result<(), nex_network::NetworkError> {
        self.sandbox.restrict_network().await
    }

    /// Ends the agent and removes its sandbox.
    pub async fn end(&self, grace: Duration) {
        let report = self.sandbox.stop(grace).await;
        tracing::debug!(agent_id = %self.id(), ?report, "sandbox ended");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.router.forget(&self.record.id);
    }
}

async fn unanswered(bus: &Client, subject: &str, timeout: Duration) {
    let mut missed = 0;
    while missed < MAX_MISSES {
        tokio::time::sleep(PING_EVERY).await;
        let request = Request::new().timeout(Some(timeout));
        match bus.send_request(subject.to_owned(), request).await {
            Ok(_) => missed = 0,
            Err(_) => missed += 1,
        }
    }
}

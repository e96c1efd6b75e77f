//! An agent after its handshake: where it lives, what it can do, and how the node notices that it is gone. Shared by its instances.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Request};
use nex_process::cgroup::MemoryUse;
use nex_process::usage::ResourceUse;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::{Handshake, subject};
use nex_protocol::id::{AgentId, InstanceId};
use nex_sandbox::{AttachError, Sandbox};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

use super::inbox::Inbox;
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
    lost: Arc<watch::Sender<Option<AgentLost>>>,
    /// Whether the world was told that it is lost.
    is_told: AtomicBool,
    /// Set when its sandbox is gone.
    ended: OnceCell<()>,
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
        let lost = Arc::new(watch::Sender::new(None));
        let tell = Arc::clone(&lost);
        let watching = TaskScope::new("agent watch");
        let (pinged, watched) = (bus.clone(), Arc::clone(&sandbox));
        let ping = subject::ping(&record.id);
        watching.spawn("agent watch", async move {
            let why = tokio::select! {
                exit = watched.exited() => format!("the agent's sandbox ended: {exit}"),
                () = unanswered(&pinged, &ping, ping_timeout) => format!("the agent did not answer {MAX_MISSES} pings in a row"),
            };
            lose(&tell, why);
        });
        Self { record, bus, sandbox, router, lost, is_told: AtomicBool::new(false), ended: OnceCell::new(), _watch: watching }
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

    /// Begins to listen to an instance, which need not be there yet.
    pub(super) fn open(&self, instance: &InstanceId) -> Inbox {
        self.router.open(self.id(), instance)
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
        let mut lost = self.lost.subscribe();
        async move {
            match lost.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_else(|| AgentLost(String::new())),
                Err(_dropped) => AgentLost("the node let go of the agent".to_owned()),
            }
        }
    }

    /// Whether it is known to be of no use any more.
    #[must_use]
    pub fn is_known_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Gives it up, for a reason that all its instances are told. Whoever lets go of it next ends it.
    pub fn condemn(&self, why: String) {
        lose(&self.lost, why);
    }

    /// Whether nobody has told the world of its loss yet; from now on somebody has.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        !self.is_told.swap(true, Ordering::AcqRel)
    }

    /// Brings a file into the sandbox, read-only; gives its path as the agent sees it.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach_file(&self, file: &Path, name: &str) -> Result<String, AttachError> {
        Ok(self.sandbox.attach_file(file, name).await?.to_string_lossy().into_owned())
    }

    /// Takes a file back; what runs of it runs on.
    pub async fn detach_file(&self, name: &str) {
        self.sandbox.detach_file(name).await;
    }

    /// How much memory its sandbox may have and had at most, where the host counts that.
    #[must_use]
    pub fn memory(&self) -> Option<MemoryUse> {
        self.sandbox.memory()
    }

    /// What its sandbox uses. Reads files of the kernel.
    #[must_use]
    pub fn usage(&self) -> Option<ResourceUse> {
        self.sandbox.usage()
    }

    /// Leaves the agent its bus and its NATS servers, where it has a network of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn restrict_network(&self) -> Result<(), nex_network::NetworkError> {
        self.sandbox.restrict_network().await
    }

    /// Ends the agent and removes its sandbox, once; whoever comes later waits for that.
    pub async fn end(&self, grace: Duration) {
        let end = || async {
            let report = self.sandbox.stop(grace).await;
            tracing::debug!(agent_id = %self.id(), ?report, "sandbox ended");
        };
        self.ended.get_or_init(end).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.router.forget(&self.record.id);
    }
}

/// The first reason counts.
fn lose(lost: &watch::Sender<Option<AgentLost>>, why: String) {
    lost.send_if_modified(|lost| {
        let is_first = lost.is_none();
        lost.get_or_insert(AgentLost(why));
        is_first
    });
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

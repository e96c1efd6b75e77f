//! One agent after its handshake: what the node may ask of it, and how it notices that it is gone.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use nex_process::Deadline;
use nex_protocol::agent::{Accepted, Deploy, Handshake, TRIGGER_SUBJECT, Undeploy, agent_subject};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::WorkloadId;
use nex_sandbox::{AdmitError, Sandbox};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::router::{AgentRouter, Report};

/// Time between two pings of an agent.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Misses in a row that make an agent lost; a guest that is merely busy answers one of them.
const MISSES: u32 = 3;

/// Longest time from an agent's death to the news of it.
const NEWS: Duration = Duration::from_secs(1);

/// A workload was not started by the agent it was given to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotDeployed {
    /// The agent may be dead; another one may do.
    #[error(transparent)]
    Unanswered(Failure),
    /// In the agent's own words.
    #[error(transparent)]
    Rejected(Failure),
}

/// Why an agent is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Gone(pub String);

/// An agent and the sandbox it lives in, owned together. Dropping it kills and removes the sandbox.
pub struct AgentSession {
    id: WorkloadId,
    handshake: Handshake,
    bus: Client,
    sandbox: Arc<dyn Sandbox>,
    reports: Option<mpsc::Receiver<Report>>,
    gone: watch::Receiver<Option<Gone>>,
    router: AgentRouter,
    _watch: nex_process::TaskScope,
}

impl fmt::Debug for AgentSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSession").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The parts a session is made of.
pub struct Parts {
    /// The agent's id.
    pub id: WorkloadId,
    /// What it said first.
    pub handshake: Handshake,
    /// The internal bus.
    pub bus: Client,
    /// Where it lives.
    pub sandbox: Arc<dyn Sandbox>,
    /// What it says.
    pub reports: mpsc::Receiver<Report>,
    /// Where its words are routed.
    pub router: AgentRouter,
    /// Longest time it may take to answer a ping.
    pub ping_timeout: Duration,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("id", &self.id).finish_non_exhaustive()
    }
}

impl AgentSession {
    /// Takes over an agent that has shaken hands, and begins to watch it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (tell, gone) = watch::channel(None);
        let watching = nex_process::TaskScope::new("agent watch");
        let (bus, sandbox) = (parts.bus.clone(), Arc::clone(&parts.sandbox));
        let ping = agent_subject(&parts.id, "ping");
        let timeout = parts.ping_timeout;
        watching.spawn("agent watch", async move {
            let lost = tokio::select! {
                exit = sandbox.exited() => Gone(format!("the agent's sandbox ended: {exit}")),
                () = unanswered(&bus, &ping, timeout) => Gone(format!("the agent did not answer {MISSES} pings in a row")),
            };
            tell.send_replace(Some(lost));
        });
        Self {
            id: parts.id,
            handshake: parts.handshake,
            bus: parts.bus,
            sandbox: parts.sandbox,
            reports: Some(parts.reports),
            gone,
            router: parts.router,
            _watch: watching,
        }
    }

    /// The agent's id.
    #[must_use]
    pub fn id(&self) -> &WorkloadId {
        &self.id
    }

    /// What it said of itself.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Its reports; the first who asks has them.
    pub fn take_reports(&mut self) -> Option<mpsc::Receiver<Report>> {
        self.reports.take()
    }

    /// Whether the agent is of no use any more, asked because it did not answer: the bus misses a dead agent before its sandbox
    /// is seen to end, so the news is waited for.
    pub async fn is_lost(&self, by: Deadline) -> bool {
        by.within(NEWS).bound(self.gone()).await.is_ok()
    }

    /// Ends when the agent is of no use any more, and says why.
    pub fn gone(&self) -> impl Future<Output = Gone> + Send + 'static {
        let mut gone = self.gone.clone();
        async move {
            match gone.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_else(|| Gone(String::new())),
                Err(_closed) => Gone("the node let go of the agent".to_owned()),
            }
        }
    }

    /// Brings a file into the sandbox, read-only; gives its path as the agent sees it.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn admit(&self, file: &Path, name: &str) -> Result<String, AdmitError> {
        Ok(self.sandbox.admit(file, name).await?.to_string_lossy().into_owned())
    }

    /// Leaves the agent its bus and its NATS servers, where it has a network of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn restrict_network(&self) -> Result<(), nex_network::NetworkError> {
        self.sandbox.restrict_network().await
    }

    /// Has the agent start its workload.
    ///
    /// # Errors
    /// A [`NotDeployed`].
    pub async fn deploy(&self, request: &Deploy, within: Duration) -> Result<Accepted, NotDeployed> {
        let answer = self.ask("deploy", request, within).await.map_err(NotDeployed::Unanswered)?;
        if answer.accepted {
            return Ok(answer);
        }
        let text = format!("Failed to deploy workload: workload rejected by agent: {}", answer.message);
        Err(NotDeployed::Rejected(Failure::new(ErrorCode::Failed, text)))
    }

    /// Has the agent stop its workload; a dead agent has nothing to stop.
    pub async fn undeploy(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if let Err(failure) = self.ask("undeploy", &Undeploy { grace_ms }, grace + Duration::from_secs(2)).await {
            tracing::debug!(agent_id = %self.id, error = %failure, "undeploy was not answered");
        }
    }

    /// A handle that calls the function this agent runs.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { bus: self.bus.clone(), subject: agent_subject(&self.id, "trigger"), gone: self.gone.clone() }
    }

    /// Ends the agent and removes its sandbox.
    pub async fn end(self, grace: Duration) {
        let report = self.sandbox.stop(grace).await;
        tracing::debug!(agent_id = %self.id, ?report, "sandbox ended");
    }

    async fn ask<T: Serialize>(&self, what: &str, body: &T, within: Duration) -> Result<Accepted, Failure> {
        let failed = |why: String| {
            Failure::new(
                ErrorCode::Failed,
                format!("Failed to deploy workload: failed to submit request for workload deployment: {why}"),
            )
        };
        let request =
            async_nats::Request::new().payload(serde_json::to_vec(body).unwrap_or_default().into()).timeout(Some(within));
        let answer = tokio::select! {
            answer = self.bus.send_request(agent_subject(&self.id, what), request) => answer.map_err(|e| failed(e.to_string()))?,
            Gone(why) = self.gone() => return Err(failed(why)),
        };
        serde_json::from_slice(&answer.payload).map_err(|e| failed(format!("unreadable answer: {e}")))
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.router.forget(&self.id);
    }
}

async fn unanswered(bus: &Client, subject: &str, timeout: Duration) {
    let mut missed = 0;
    while missed < MISSES {
        tokio::time::sleep(PING_EVERY).await;
        let request = async_nats::Request::new().timeout(Some(timeout));
        match bus.send_request(subject.to_owned(), request).await {
            Ok(_) => missed = 0,
            Err(_) => missed += 1,
        }
    }
}

/// Calls the function of one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    bus: Client,
    subject: String,
    gone: watch::Receiver<Option<Gone>>,
}

impl Caller {
    /// One call: the reply message, or why there is none.
    ///
    /// # Errors
    /// A text for the caller.
    pub async fn call(&self, trigger: &str, payload: Bytes, within: Duration) -> Result<Message, String> {
        let mut headers = HeaderMap::new();
        headers.insert(TRIGGER_SUBJECT, trigger);
        let request = async_nats::Request::new().payload(payload).headers(headers).timeout(Some(within));
        let mut gone = self.gone.clone();
        let answer = tokio::select! {
            answer = self.bus.send_request(self.subject.clone(), request) => answer,
            _ = gone.wait_for(Option::is_some) => return Err("the agent was lost during the call".to_owned()),
        };
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => format!("the agent did not answer within {} ms", within.as_millis()),
            RequestErrorKind::NoResponders => "the agent is gone".to_owned(),
            _ => error.to_string(),
        })
    }
}

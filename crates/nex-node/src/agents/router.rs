//! What agents say reaches the node here: one subscription on `hostint.>`, sorted by the agent in the subject.
//!
//! The subject is the only thing believed: the bus lets an agent publish under its own id and no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Client, Message};
use futures::StreamExt as _;
use nex_process::TaskScope;
use nex_protocol::agent::{Accepted, AgentEvent, Handshake, Logs, PROTOCOL, parse_host_subject};
use nex_protocol::id::WorkloadId;
use tokio::sync::{mpsc, oneshot};

/// Events and log batches of one agent that may wait for their reader.
const BACKLOG: usize = 1024;

/// What an agent reports, in the order it was said.
#[derive(Debug)]
pub enum Report {
    /// Something happened to the workload.
    Event(AgentEvent),
    /// Lines of the workload.
    Logs(Logs),
    /// A call of a host service, to be answered on the message's reply subject.
    Host {
        /// `<service>.<method>`
        what: String,
        /// The request.
        message: Message,
    },
}

/// Where one agent's words go.
struct Port {
    handshake: Option<oneshot::Sender<Handshake>>,
    reports: mpsc::Sender<Report>,
}

/// What the maker of an agent listens to.
#[derive(Debug)]
pub struct Listener {
    /// The agent's first word.
    pub handshake: oneshot::Receiver<Handshake>,
    /// All it says later.
    pub reports: mpsc::Receiver<Report>,
}

/// The router. Cheap to clone.
#[derive(Clone, Default)]
pub struct AgentRouter {
    ports: Arc<Mutex<HashMap<WorkloadId, Port>>>,
}

impl std::fmt::Debug for AgentRouter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentRouter").finish_non_exhaustive()
    }
}

impl AgentRouter {
    /// Subscribes and routes in a scope.
    ///
    /// # Errors
    /// When the bus does not take the subscription.
    pub async fn start(scope: &TaskScope, bus: Client) -> Result<Self, async_nats::SubscribeError> {
        let router = Self::default();
        let mut spoken = bus.subscribe("hostint.>").await?;
        bus.flush().await.ok();
        let routing = router.clone();
        let cancelled = scope.cancel_token();
        scope.spawn("agent router", async move {
            loop {
                tokio::select! {
                    message = spoken.next() => match message {
                        Some(message) => routing.route(&bus, message).await,
                        None => return,
                    },
                    () = cancelled.cancelled() => return,
                }
            }
        });
        Ok(router)
    }

    /// Begins to listen to an agent that is about to be made.
    #[must_use]
    pub fn listen(&self, agent: &WorkloadId) -> Listener {
        let (shake, handshake) = oneshot::channel();
        let (sender, reports) = mpsc::channel(BACKLOG);
        self.lock().insert(agent.clone(), Port { handshake: Some(shake), reports: sender });
        Listener { handshake, reports }
    }

    /// Stops to listen; what the agent says from here on is nobody's.
    pub fn forget(&self, agent: &WorkloadId) {
        self.lock().remove(agent);
    }

    async fn route(&self, bus: &Client, message: Message) {
        let subject = message.subject.clone();
        let Some((agent, what)) = parse_host_subject(&subject) else { return };
        if what == "handshake" {
            return self.shake(bus, &agent, &message).await;
        }
        let Some(reports) = self.lock().get(&agent).map(|port| port.reports.clone()) else { return };
        let report = match what {
            "events" => serde_json::from_slice(&message.payload).map(Report::Event),
            "logs" => serde_json::from_slice(&message.payload).map(Report::Logs),
            other => match other.strip_prefix("host.") {
                Some(what) => Ok(Report::Host { what: what.to_owned(), message }),
                None => return,
            },
        };
        match report {
            // A full channel is one agent's own trouble; waiting for it would be everybody's.
            Ok(report) => {
                if let Err(mpsc::error::TrySendError::Full(_)) = reports.try_send(report) {
                    tracing::warn!(agent_id = %agent, "the agent talks faster than the node can listen; a report is dropped");
                }
            }
            Err(error) => tracing::warn!(agent_id = %agent, what, %error, "the agent said something unreadable"),
        }
    }

    async fn shake(&self, bus: &Client, agent: &WorkloadId, message: &Message) {
        let nobody = || "nobody waits for this agent".to_owned();
        let refusal = match serde_json::from_slice::<Handshake>(&message.payload) {
            Ok(handshake) if handshake.version.len() > 64 || handshake.message.len() > 1_024 || handshake.xkey.len() != 56 => {
                "its version, message or key is not of a sensible length".to_owned()
            }
            Ok(handshake) if handshake.protocol != PROTOCOL => {
                format!(
                    "the agent speaks protocol {}, this node speaks {PROTOCOL}; install nex and nex-agent of one version",
                    handshake.protocol
                )
            }
            Ok(handshake) => match self.take_port(agent) {
                Some(Some(waiting)) => waiting.send(handshake).map_or_else(|_left| nobody(), |()| String::new()),
                // It shook hands before and did not hear the answer: the bus died in between.
                Some(None) => String::new(),
                None => nobody(),
            },
            Err(error) => format!("unreadable handshake: {error}"),
        };
        if !refusal.is_empty() {
            tracing::warn!(agent_id = %agent, reason = %refusal, "handshake refused");
        }
        let answer = Accepted { accepted: refusal.is_empty(), message: refusal };
        if let Some(reply) = message.reply.clone() {
            bus.publish(reply, serde_json::to_vec(&answer).unwrap_or_default().into()).await.ok();
        }
    }

    /// Whether an agent is known here, and who still waits for its first word.
    fn take_port(&self, agent: &WorkloadId) -> Option<Option<oneshot::Sender<Handshake>>> {
        self.lock().get_mut(agent).map(|port| port.handshake.take())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadId, Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One start of a workload on an agent, owned by whoever started it: deployed, invoked, undeployed, and heard in its inbox.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use nex_bus::invocation;
use nex_bus::own_headers::to_function;
use nex_bus::streaming::{Part, Puller};
use nex_process::{Deadline, Elapsed};
use nex_protocol::agent::invocation::Headers;
use nex_protocol::agent::streaming::{STREAM, Word};
use nex_protocol::agent::{
    Answer, Deploy, Invocation, InvocationError, Outcome, Ping, Pong, RejectCode, Undeploy, Update, subject,
};
use nex_protocol::deploy::StopSignal;
use nex_protocol::id::InstanceId;
use nex_protocol::replay::Record;
use serde::Serialize;

use super::agent::{Agent, AgentLost};
use super::inbox::Inbox;

/// Time for one answer of an agent that was left running, and the pause before it is asked again.
const PING_TRY: Duration = Duration::from_secs(2);
const PING_PAUSE: Duration = Duration::from_millis(20);
/// Time beyond a grace in which the agent answers that it is over.
const UNDEPLOY_SLACK: Duration = Duration::from_secs(2);

/// Why an agent did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// It did not answer in time, or not readably: it may be dead, and another one may do.
    #[error("failed to submit request for workload deployment: {0}")]
    Unanswered(String),
    /// It said no.
    #[error("workload rejected by agent: {message}")]
    Rejected {
        /// For programs.
        code: RejectCode,
        /// The agent's own words.
        message: String,
    },
}

/// An instance. Dropping it stops listening; the agent ends with its last handle.
pub struct Instance {
    agent: Arc<Agent>,
    id: InstanceId,
    /// What the agent says of it.
    pub inbox: Inbox,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("id", &self.id).field("agent", self.agent.id()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Begins to listen to an instance of an agent, which need not be there yet.
    #[must_use]
    pub fn new(agent: Arc<Agent>, id: InstanceId) -> Self {
        let inbox = agent.open(&id);
        Self { agent, id, inbox }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Its agent.
    #[must_use]
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Has the agent start it.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub async fn deploy(&self, request: &Deploy, by: Deadline) -> Result<(), InstanceError> {
        match ask(&self.agent, subject::deploy(self.agent.id(), &self.id), request, by.remaining()).await? {
            Answer::Done => Ok(()),
            Answer::Rejected { code, message } => Err(InstanceError::Rejected { code, message }),
        }
    }

    /// Waits until its agent, which an earlier process of the node started, answers that it has an instance still: at once, or as soon as
    /// it has found its bus again.
    ///
    /// # Errors
    /// [`AgentLost`] where it does not.
    pub async fn runs(&self, by: Deadline) -> Result<(), AgentLost> {
        match ping(&self.agent, Ping::default(), by).await? {
            Some(pong) if pong.instances > 0 => Ok(()),
            _ => Err(AgentLost("its agent has no instance of it any more".to_owned())),
        }
    }

    /// Has the agent stop it; a dead agent has nothing to stop.
    pub async fn undeploy(&self, grace: Duration, signal: Option<StopSignal>) {
        undeploy(&self.agent, &self.id, grace, signal).await;
    }

    /// A handle that invokes it.
    #[must_use]
    pub fn invoker(&self) -> Invoker {
        Invoker {
            agent: Arc::downgrade(&self.agent),
            bus: self.agent.bus().clone(),
            subject: subject::invoke(self.agent.id(), &self.id),
        }
    }
}

impl Agent {
    /// Has it replace files of an instance that runs.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub async fn update(&self, id: &InstanceId, request: &Update, by: Deadline) -> Result<(), InstanceError> {
        match ask(self, subject::update(self.id(), id), request, by.remaining()).await? {
            Answer::Done => Ok(()),
            Answer::Rejected { code, message } => Err(InstanceError::Rejected { code, message }),
        }
    }
}

/// Has an agent stop an instance; a dead agent has nothing to stop.
pub(super) async fn undeploy(agent: &Agent, id: &InstanceId, grace: Duration, signal: Option<StopSignal>) {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let subject = subject::undeploy(agent.id(), id);
    if let Err(error) = ask(agent, subject, &Undeploy { grace_ms, signal }, grace + UNDEPLOY_SLACK).await {
        tracing::debug!(agent_id = %agent.id(), instance_id = %id, %error, "undeploy was not answered");
    }
}

/// The instances that an agent answers that it has, see [`Instance::runs`].
pub(super) async fn ids(agent: &Agent, by: Deadline) -> Result<BTreeSet<InstanceId>, AgentLost> {
    let pong = ping(agent, Ping { ids: true }, by).await?;
    Ok(pong.map(|pong| pong.ids.into_iter().collect()).unwrap_or_default())
}

/// Asks until it answers; nothing where that cannot be read.
async fn ping(agent: &Agent, body: Ping, by: Deadline) -> Result<Option<Pong>, AgentLost> {
    let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    let answered = async {
        loop {
            let ping = Request::new().payload(body.clone()).timeout(Some(PING_TRY));
            match agent.bus().send_request(subject::ping(agent.id()), ping).await {
                Ok(answer) => return serde_json::from_slice::<Pong>(&answer.payload).ok(),
                // Said at once while it is not back on the bus.
                Err(_unheard) => tokio::time::sleep(PING_PAUSE).await,
            }
        }
    };
    tokio::select! {
        answer = by.bound(answered) => answer.map_err(|Elapsed| AgentLost("its agent does not answer".to_owned())),
        lost = agent.lost() => Err(lost),
    }
}

async fn ask<T: Serialize>(agent: &Agent, subject: String, body: &T, within: Duration) -> Result<Answer, InstanceError> {
    let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
    let request = Request::new().payload(body).timeout(Some(within));
    let answer = tokio::select! {
        answer = agent.bus().send_request(subject, request) => answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => {
                format!("the agent did not answer within {} s; next: try again when the node has less to do", within.as_secs())
            }
            _ => error.to_string(),
        }),
        lost = agent.lost() => Err(lost.to_string()),
    };
    let answer = answer.map_err(InstanceError::Unanswered)?;
    serde_json::from_slice(&answer.payload)
        .map_err(|error| InstanceError::Unanswered(format!("the agent's answer is unreadable: {error}")))
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.agent.close(&self.id);
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Invoked {
    /// Its outcome.
    pub outcome: Outcome,
    /// The nanoseconds it took in the function, where that is known.
    pub nanos: Option<u64>,
    /// Its host calls, where they were recorded.
    pub calls: Option<Record>,
}

impl Invoked {
    /// An outcome of which nothing else is known.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, nanos: None, calls: None }
    }
}

/// Invokes one instance; it does not keep the agent alive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Invoker {
    agent: std::sync::Weak<Agent>,
    bus: Client,
    subject: String,
}

impl Invoker {
    /// One call. The agent has a moment more than the invocation's deadline to answer that
    /// it was reached.
    pub async fn invoke(&self, invocation: &Invocation, callers: Option<&HeaderMap>, payload: Bytes, slack: Duration) -> Invoked {
        let headers = invocation::headers(invocation, callers);
        match self.ask(headers, payload, Duration::from_millis(invocation.deadline_ms) + slack).await {
            Ok(answer) => read(answer),
            Err(failed) => failed,
        }
    }

    /// One call, whose response may come piece by piece.
    pub async fn begin(&self, invocation: &Invocation, callers: Option<&HeaderMap>, payload: Bytes, slack: Duration) -> Begun {
        let mut headers = invocation::headers(invocation, callers);
        headers.insert(STREAM, Word::Pull.as_str());
        let answer = match self.ask(headers, payload, Duration::from_millis(invocation.deadline_ms) + slack).await {
            Ok(answer) => answer,
            Err(failed) => return Begun::Whole(failed),
        };
        let agent = self.agent.upgrade();
        // An agent is asked for more on its own inbox or nowhere.
        let puller = Puller::of(&self.bus, &answer)
            .filter(|puller| agent.as_ref().is_some_and(|agent| subject::is_inbox_of(agent.id(), puller.subject())));
        match (puller, agent) {
            (Some(puller), Some(agent)) => {
                Begun::Streamed(Streamed { headers: to_function(answer.headers.as_ref()), puller, agent: Arc::downgrade(&agent) })
            }
            _ => Begun::Whole(read(answer)),
        }
    }

    async fn ask(&self, headers: HeaderMap, payload: Bytes, within: Duration) -> Result<Message, Invoked> {
        let failed = |message: &str| {
            Err(Invoked::of(Outcome::Error(InvocationError { code: 500, message: message.to_owned(), limit: None })))
        };
        let Some(lost) = self.agent.upgrade().map(|agent| agent.lost()) else { return failed("the agent is gone") };
        let request = Request::new().payload(payload).headers(headers).timeout(Some(within));
        let answer = tokio::select! {
            answer = self.bus.send_request(self.subject.clone(), request) => answer,
            _lost = lost => return failed("the agent was lost during the call"),
        };
        answer.or_else(|error| match error.kind() {
            RequestErrorKind::TimedOut => failed(&format!("the agent did not answer within {} ms", within.as_millis())),
            RequestErrorKind::NoResponders => failed("the agent is gone"),
            _ => failed(&error.to_string()),
        })
    }
}

fn read(answer: Message) -> Invoked {
    let calls = invocation::calls(&answer);
    let (outcome, nanos) = invocation::read_outcome(answer);
    Invoked { outcome, nanos, calls }
}

/// How a call is answered.
#[derive(Debug)]
pub enum Begun {
    /// At once.
    Whole(Invoked),
    /// Piece by piece.
    Streamed(Streamed),
}

/// A response under way.
#[derive(Debug)]
pub struct Streamed {
    /// Its head.
    pub headers: Headers,
    puller: Puller,
    agent: std::sync::Weak<Agent>,
}

impl Streamed {
    /// The next part. Nothing after [`Part::End`] and [`Part::Failed`] is asked for.
    pub async fn next(&self) -> Part {
        let gone = || Part::Failed(500, "the agent was lost during the call".to_owned());
        let Some(lost) = self.agent.upgrade().map(|agent| agent.lost()) else { return gone() };
        tokio::select! {
            part = self.puller.next() => part,
            _lost = lost => gone(),
        }
    }

    /// Whoever takes it has no room yet.
    pub async fn hold(&self) {
        self.puller.hold().await;
    }

    /// Nobody takes it any more: the call is ended.
    pub async fn gone(&self) {
        self.puller.gone().await;
    }
}

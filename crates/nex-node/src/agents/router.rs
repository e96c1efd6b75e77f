//! What agents say reaches the node here: one subscription, sorted by the agent in the subject and the instance that the node gave it.
//!
//! The subject is the only thing believed: the bus lets an agent publish under its own id and no other. An answer goes into the agent's
//! own inbox or nowhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, HeaderValue, Message, Subject};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_process::TaskScope;
use nex_protocol::agent::report::SEQUENCE;
use nex_protocol::agent::subject::{ALL_AGENTS, FromAgent, is_inbox_of};
use nex_protocol::agent::{AgentEvent, EventAck, Handshake, Welcome};
use nex_protocol::id::{AgentId, InstanceId};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::inbox::{HostCall, Inbox, InboxSender, inbox};

/// Largest event that is looked at, bytes.
const MAX_EVENT: usize = 512 * 1024;

/// Where one agent's words go.
#[derive(Default)]
struct AgentPort {
    handshake: Option<oneshot::Sender<Handshake>>,
    /// Number of the last event that was taken.
    sequence: u64,
    /// Number of the last exit that was passed on.
    exit: Option<u64>,
    instances: HashMap<InstanceId, InboxSender>,
    /// Instances that will be listened to: their events wait until then.
    awaited: BTreeSet<InstanceId>,
}

/// The router. Cheap to clone.
#[derive(Clone, Default)]
pub struct AgentRouter {
    ports: Arc<Mutex<HashMap<AgentId, AgentPort>>>,
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
        let mut spoken = bus.subscribe(ALL_AGENTS).await?;
        bus.flush().await.ok();
        let routing = router.clone();
        let cancelled = scope.cancel_token();
        scope.spawn("agent router", async move {
            while let Some(Some(message)) = cancelled.run_until_cancelled(spoken.next()).await {
                routing.route(&bus, message).await;
            }
        });
        Ok(router)
    }

    /// Expects the handshake of an agent that is about to be made.
    #[must_use]
    pub fn expect(&self, agent: &AgentId) -> oneshot::Receiver<Handshake> {
        let (sender, handshake) = oneshot::channel();
        self.lock().insert(agent.clone(), AgentPort { handshake: Some(sender), ..AgentPort::default() });
        handshake
    }

    /// Forgets an agent; what it says from here on is nobody's.
    pub fn forget(&self, agent: &AgentId) {
        self.lock().remove(agent);
    }

    /// Begins to listen to an instance of an agent.
    #[must_use]
    pub fn open(&self, agent: &AgentId, instance: &InstanceId) -> Inbox {
        let (sender, inbox) = inbox();
        let mut ports = self.lock();
        let port = ports.entry(agent.clone()).or_default();
        port.awaited.remove(instance);
        port.instances.insert(instance.clone(), sender);
        inbox
    }

    /// Expects that somebody will listen to these instances of an agent that was left running: what it tells of them is not lost meanwhile.
    pub fn await_instances(&self, agent: &AgentId, instances: BTreeSet<InstanceId>) {
        self.lock().entry(agent.clone()).or_default().awaited = instances;
    }

    /// Stops to listen to an instance.
    pub fn close(&self, agent: &AgentId, instance: &InstanceId) {
        if let Some(port) = self.lock().get_mut(agent) {
            port.instances.remove(instance);
            port.awaited.remove(instance);
        }
    }

    async fn route(&self, bus: &Client, message: Message) {
        let subject = message.subject.clone();
        let Some((agent, said)) = FromAgent::parse(&subject) else { return };
        let reply = match message.reply.clone() {
            Some(reply) if !is_inbox_of(&agent, &reply) => {
                tracing::warn!(agent_id = %agent, %reply, "the agent wants an answer where it has no business; its message is dropped");
                return;
            }
            reply => reply,
        };
        match said {
            FromAgent::Handshake => self.handshake(bus, &agent, reply, &message.payload).await,
            FromAgent::Event(instance) => {
                if let Some(ack) = self.event(&agent, &instance, &message) {
                    answer_json(bus, reply, &ack).await;
                }
            }
            FromAgent::Log(instance) => {
                if self.log(&agent, &instance, &message) {
                    answer(bus, reply, "").await;
                }
            }
            FromAgent::HostCall { instance, call } => {
                if let (Some(inbox), Some(_)) = (self.inbox(&agent, &instance), reply) {
                    // Full only while its server is refusing others; the agent's own timeout answers this one.
                    inbox.host_calls.try_send(HostCall { call: call.to_owned(), message }).ok();
                }
            }
        }
    }

    async fn handshake(&self, bus: &Client, agent: &AgentId, reply: Option<Subject>, body: &[u8]) {
        let nobody = || "nobody waits for this agent".to_owned();
        let refusal = match serde_json::from_slice::<Handshake>(body) {
            Ok(handshake) => handshake.refusal().or_else(|| match self.take_waiting(agent) {
                Some(Some(waiting)) => waiting.send(handshake).is_err().then(nobody),
                // It shook hands before and did not hear the answer: the bus died in between.
                Some(None) => None,
                None => Some(nobody()),
            }),
            Err(error) => Some(format!("unreadable handshake: {error}")),
        };
        if let Some(reason) = &refusal {
            tracing::warn!(agent_id = %agent, reason, "handshake refused");
        }
        let welcome = Welcome { accepted: refusal.is_none(), message: refusal.unwrap_or_default() };
        answer_json(bus, reply, &welcome).await;
    }

    /// Takes an event once, whatever how often it is sent. Without an acknowledgement the agent sends it again.
    ///
    /// An exit that somebody waits for is never acknowledged: what follows from it ends the agent, and a node that is killed before that
    /// is told once more.
    pub(crate) fn event(&self, agent: &AgentId, instance: &InstanceId, message: &Message) -> Option<EventAck> {
        let header = message.headers.as_ref()?.get(SEQUENCE).map(HeaderValue::as_str)?;
        let sequence: u64 = header.parse().ok()?;
        let mut ports = self.lock();
        let port = ports.get_mut(agent)?;
        if port.awaited.contains(instance) {
            return None;
        }
        if sequence > port.sequence {
            // An event that nobody waits for, or that cannot be read, is taken as well: sending it again would not help.
            if let (Some(inbox), Some(event)) = (port.instances.get(instance), read_event(agent, &message.payload)) {
                let is_exit = matches!(event, AgentEvent::Exited { .. });
                if let Err(mpsc::error::TrySendError::Full(_)) = inbox.events.try_send(event) {
                    return None;
                }
                port.exit = is_exit.then_some(sequence).or(port.exit);
            }
            port.sequence = sequence;
        }
        (port.exit != Some(sequence)).then_some(EventAck { sequence })
    }

    /// Takes log lines once, however often they are sent; says whether the agent is to know so. Lines of an instance that is about to be
    /// taken over wait for that; those that nobody waits for are dropped.
    fn log(&self, agent: &AgentId, instance: &InstanceId, message: &Message) -> bool {
        let mut ports = self.lock();
        let Some(port) = ports.get_mut(agent) else { return false };
        if port.awaited.contains(instance) {
            return false;
        }
        let sequence = message.headers.as_ref().and_then(|headers| headers.get(SEQUENCE)?.as_str().parse().ok());
        if let Some(inbox) = port.instances.get_mut(instance) {
            inbox.log(sequence, message.payload.clone());
        }
        true
    }

    /// Whether an agent is known here, and who still waits for its handshake.
    fn take_waiting(&self, agent: &AgentId) -> Option<Option<oneshot::Sender<Handshake>>> {
        self.lock().get_mut(agent).map(|port| port.handshake.take())
    }

    fn inbox(&self, agent: &AgentId, instance: &InstanceId) -> Option<InboxSender> {
        self.lock().get(agent)?.instances.get(instance).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, AgentPort>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_event(agent: &AgentId, payload: &[u8]) -> Option<AgentEvent> {
    if payload.len() > MAX_EVENT {
        tracing::warn!(agent_id = %agent, bytes = payload.len(), "the agent sent an event larger than any is");
        return None;
    }
    serde_json::from_slice(payload)
        .inspect_err(|error| tracing::warn!(agent_id = %agent, %error, "the agent sent an event that cannot be read"))
        .ok()
}

async fn answer_json<T: Serialize>(bus: &Client, reply: Option<Subject>, body: &T) {
    answer(bus, reply, serde_json::to_vec(body).unwrap_or_default()).await;
}

async fn answer(bus: &Client, reply: Option<Subject>, body: impl Into<Bytes>) {
    if let Some(reply) = reply {
        bus.publish(reply, body.into()).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::HeaderMap;

    fn message(sequence: &str, event: &AgentEvent) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, sequence);
        let payload: bytes::Bytes = serde_json::to_vec(event).unwrap().into();
        let length = payload.len();
        Message { subject: "x".into(), reply: None, payload, headers: Some(headers), status: None, description: None, length }
    }

    fn exited(sequence: &str, code: i32) -> Message {
        message(sequence, &AgentEvent::Exited { code, message: String::new() })
    }

    fn calls(sequence: &str, succeeded: u64) -> Message {
        let trigger = "t".to_owned();
        message(sequence, &AgentEvent::Calls { trigger, succeeded, failed: 0, elapsed_nanos: 0, errors: Vec::new() })
    }

    #[test]
    fn an_event_is_taken_once_however_often_it_is_sent() {
        let router = AgentRouter::default();
        let (agent, instance) = (AgentId::new(1), InstanceId::new(2));
        let mut inbox = router.open(&agent, &instance);
        for _ in 0..3 {
            assert_eq!(router.event(&agent, &instance, &calls("1", 7)), Some(EventAck { sequence: 1 }));
        }
        assert_eq!(router.event(&agent, &instance, &calls("5", 8)), Some(EventAck { sequence: 5 }));
        assert_eq!(router.event(&agent, &instance, &calls("x", 9)), None);
        let told: Vec<_> = std::iter::from_fn(|| inbox.events.try_recv().ok()).collect();
        assert!(
            matches!(told.as_slice(), [AgentEvent::Calls { succeeded: 7, .. }, AgentEvent::Calls { succeeded: 8, .. }]),
            "{told:?}"
        );
    }

    #[test]
    fn an_exit_is_taken_once_and_told_again_to_the_next_process_of_the_node() {
        let (agent, instance) = (AgentId::new(1), InstanceId::new(2));
        for _process in 0..2 {
            let router = AgentRouter::default();
            let mut inbox = router.open(&agent, &instance);
            for _ in 0..3 {
                assert_eq!(router.event(&agent, &instance, &exited("4", 7)), None, "its end is on nobody's disk yet");
            }
            assert!(matches!(inbox.events.try_recv(), Ok(AgentEvent::Exited { code: 7, .. })));
            assert!(inbox.events.try_recv().is_err());
            assert_eq!(router.event(&agent, &instance, &calls("5", 0)), Some(EventAck { sequence: 5 }));
        }
    }

    #[test]
    fn an_event_of_an_instance_that_is_about_to_be_taken_over_waits_for_that() {
        let router = AgentRouter::default();
        let (agent, first, second) = (AgentId::new(1), InstanceId::new(2), InstanceId::new(3));
        router.await_instances(&agent, [first.clone(), second.clone()].into());
        let _inbox = router.open(&agent, &first);
        assert_eq!(router.event(&agent, &second, &calls("1", 7)), None);
        let mut inbox = router.open(&agent, &second);
        assert_eq!(router.event(&agent, &second, &calls("1", 7)), Some(EventAck { sequence: 1 }));
        assert!(matches!(inbox.events.try_recv(), Ok(AgentEvent::Calls { succeeded: 7, .. })));
    }

    #[test]
    fn an_event_without_room_is_not_acknowledged_and_taken_later() {
        let router = AgentRouter::default();
        let (agent, instance) = (AgentId::new(1), InstanceId::new(2));
        let mut inbox = router.open(&agent, &instance);
        let mut sequence = 0_u64;
        let refused = loop {
            sequence += 1;
            if router.event(&agent, &instance, &calls(&sequence.to_string(), 0)).is_none() {
                break sequence;
            }
        };
        assert!(inbox.events.try_recv().is_ok());
        let taken = router.event(&agent, &instance, &calls(&refused.to_string(), 0));
        assert_eq!(taken, Some(EventAck { sequence: refused }));
    }

    #[test]
    fn lines_are_taken_once_and_those_of_an_instance_that_is_about_to_be_taken_over_wait_for_that() {
        let router = AgentRouter::default();
        let (agent, instance) = (AgentId::new(1), InstanceId::new(2));
        let mut lines = calls("1", 0);
        lines.payload = r#"{"lines":[{"stderr":false,"text":"line"}]}"#.into();
        assert!(!router.log(&agent, &instance, &lines), "nobody knows the agent");
        router.await_instances(&agent, [instance.clone()].into());
        assert!(!router.log(&agent, &instance, &lines));
        let mut inbox = router.open(&agent, &instance);
        assert!(router.log(&agent, &instance, &lines) && router.log(&agent, &instance, &lines));
        assert_eq!(inbox.logs.try_recv().unwrap().logs.lines.len(), 1);
        assert!(inbox.logs.try_recv().is_none(), "it was taken twice");
        router.close(&agent, &instance);
        assert!(router.log(&agent, &instance, &lines), "what nobody reads is sent again for ever");
    }

    #[test]
    fn events_of_instances_that_are_not_the_agents_reach_nobody() {
        let router = AgentRouter::default();
        let (agent, other, instance) = (AgentId::new(1), AgentId::new(2), InstanceId::new(3));
        let mut inbox = router.open(&agent, &instance);
        drop(router.expect(&other));
        assert_eq!(router.event(&other, &instance, &exited("1", 0)), Some(EventAck { sequence: 1 }));
        assert!(inbox.events.try_recv().is_err());
        assert!(router.inbox(&other, &instance).is_none());
    }
}

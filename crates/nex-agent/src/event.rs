//! Lifecycle events on their way to the node: numbered, one after the other, sent again until the node has taken them.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use nex_protocol::agent::report::SEQUENCE;
use nex_protocol::agent::{AgentEvent, EventAck, subject};
use nex_protocol::id::{AgentId, InstanceId};
use tokio::sync::Mutex;

/// Time the node has to acknowledge an event before it is sent again.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before that where the answer came at once: nobody is on the bus.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// Sends the events of an agent.
pub(crate) struct EventSender {
    bus: Client,
    agent: AgentId,
    /// Number of the next event. Held while one is on its way, so that they arrive in order.
    next: Mutex<u64>,
}

impl EventSender {
    /// No event was sent yet.
    pub(crate) fn new(bus: Client, agent: AgentId) -> Self {
        Self { bus, agent, next: Mutex::new(1) }
    }

    /// Returns when the node has taken the event, however long it is away.
    ///
    /// # Cancel safety
    /// When dropped, the event may or may not have arrived; its number is not used again.
    pub(crate) async fn deliver(&self, instance: &InstanceId, event: &AgentEvent) {
        let mut next = self.next.lock().await;
        let sequence = *next;
        *next += 1;
        let body = Bytes::from(serde_json::to_vec(event).unwrap_or_default());
        while !self.send(instance, sequence, body.clone()).await {
            tokio::time::sleep(RESEND_PAUSE).await;
        }
    }

    async fn send(&self, instance: &InstanceId, sequence: u64, body: Bytes) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, sequence.to_string());
        let request = Request::new().payload(body).headers(headers).timeout(Some(ACK_TIMEOUT));
        let answer = self.bus.send_request(subject::event(&self.agent, instance), request).await;
        let ack = answer.ok().and_then(|answer| serde_json::from_slice::<EventAck>(&answer.payload).ok());
        ack.is_some_and(|ack| ack.sequence == sequence)
    }
}

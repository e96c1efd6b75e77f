//! What the node tells the user's NATS, on its way there: one queue, in order, bounded in bytes, and nobody waits for it.
//!
//! When NATS is slow or away the queue fills. Log lines are refused first, and their writers count them; events go on being taken until
//! the queue is full twice over.
//!
//! Of an event that is owed the journal knows until NATS has it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures::future::OptionFuture;
use nex_process::{Deadline, TaskScope, crash_point};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::journal::{Journal, OwedEvent};

/// Bytes that may wait before log lines are refused.
pub const LOG_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that may wait before events are lost.
pub const EVENT_BYTES: usize = 2 * LOG_BYTES;
/// What a message costs beside its body, bytes.
const OVERHEAD: usize = 128;
/// Most owed events that are told before the journal hears of it, and how long it waits for more of them: a write of its own for each
/// would be in the way of the next deploy's.
const SETTLE_AT: usize = 64;
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user's NATS does not take what this node has to tell")]
pub struct Full;

#[derive(Debug)]
struct Message {
    subject: String,
    body: Bytes,
    /// Its key among what is owed, if it is.
    owed: Option<String>,
}

impl Message {
    fn cost(&self) -> usize {
        self.body.len() + self.subject.len() + OVERHEAD
    }
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    lost_events: u64,
}

#[derive(Debug)]
struct Inner {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Somebody waits for the journal to hear of what was told.
    hurry: Notify,
    /// Whether everything told so far is with the client, and the journal has heard of it.
    idle: watch::Sender<bool>,
}

/// The queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

impl Outbox {
    /// A queue that nobody empties; see [`Self::start`].
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner { queue: Mutex::default(), wake: Notify::new(), hurry: Notify::new(), idle: watch::Sender::new(true) };
        Self { inner: Arc::new(inner) }
    }

    /// A queue that is emptied onto a connection, in a scope.
    #[must_use]
    pub fn start(scope: &TaskScope, nats: Client, journal: Journal) -> Self {
        let outbox = Self::new();
        let (emptied, cancelled) = (outbox.clone(), scope.cancel_token());
        scope.spawn("outbox", async move {
            cancelled.run_until_cancelled(emptied.publish_all(nats, journal)).await;
        });
        outbox
    }

    /// Tells an event. Lost, and counted, only when [`EVENT_BYTES`] wait.
    pub fn event(&self, subject: String, body: Bytes) {
        self.tell(Message { subject, body, owed: None });
    }

    /// Tells an event that is owed: one that is lost here is still in the journal, and told by the next start of the node.
    pub fn owed(&self, key: String, OwedEvent { subject, event }: &OwedEvent) {
        let body = serde_json::to_vec(event).unwrap_or_default().into();
        self.tell(Message { subject: subject.clone(), body, owed: Some(key) });
    }

    fn tell(&self, message: Message) {
        if self.push(message, EVENT_BYTES).is_err() {
            let mut queue = self.lock();
            queue.lost_events = queue.lost_events.saturating_add(1);
            if queue.lost_events.is_power_of_two() {
                tracing::error!(lost = queue.lost_events, "events are lost: the user's NATS takes nothing");
            }
        }
    }

    /// Tells a log line.
    ///
    /// # Errors
    /// [`Full`] when [`LOG_BYTES`] wait; the writer counts it.
    pub fn log(&self, subject: String, body: Bytes) -> Result<(), Full> {
        self.push(Message { subject, body, owed: None }, LOG_BYTES)
    }

    /// Whether a log line would be refused, or is about to be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= LOG_BYTES / 2
    }

    /// Waits until everything told so far was taken by the connection, and is owed no more; says whether it was in time.
    pub async fn flushed(&self, by: Deadline) -> bool {
        let mut idle = self.inner.idle.subscribe();
        self.inner.hurry.notify_one();
        by.bound(idle.wait_for(|idle| *idle)).await.is_ok_and(|waited| waited.is_ok())
    }

    fn push(&self, message: Message, limit: usize) -> Result<(), Full> {
        let cost = message.cost();
        {
            let mut queue = self.lock();
            if queue.bytes.saturating_add(cost) > limit {
                return Err(Full);
            }
            queue.bytes += cost;
            queue.messages.push_back(message);
            self.inner.idle.send_if_modified(|idle| std::mem::replace(idle, false));
        }
        self.inner.wake.notify_one();
        Ok(())
    }

    async fn publish_all(self, nats: Client, journal: Journal) {
        let (mut told, mut settle_at) = (Vec::new(), None);
        loop {
            let next = self.lock().messages.pop_front();
            let Some(message) = next else {
                // Nothing is lost by a client that is not connected: it keeps what it took.
                if told.is_empty() && self.lock().messages.is_empty() {
                    self.inner.idle.send_replace(true);
                }
                let settles = OptionFuture::from(settle_at.map(tokio::time::sleep_until));
                tokio::select! {
                    () = self.inner.wake.notified() => continue,
                    () = self.inner.hurry.notified() => {}
                    Some(()) = settles => {}
                }
                settle_at = None;
                settle(&nats, &journal, std::mem::take(&mut told)).await;
                continue;
            };
            if told.len() >= SETTLE_AT {
                settle_at = None;
                settle(&nats, &journal, std::mem::take(&mut told)).await;
            }
            let cost = message.cost();
            match nats.publish(message.subject, message.body).await {
                Ok(()) => {
                    if message.owed.is_some() {
                        settle_at = settle_at.or_else(|| Some(Instant::now() + SETTLE_AFTER));
                    }
                    told.extend(message.owed);
                }
                Err(error) => tracing::debug!(%error, "a message could not be published"),
            }
            let mut queue = self.lock();
            queue.bytes = queue.bytes.saturating_sub(cost);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server has is owed no more.
async fn settle(nats: &Client, journal: &Journal, told: Vec<String>) {
    if told.is_empty() {
        return;
    }
    if nats.flush().await.is_err() {
        return;
    }
    crash_point("outbox: the server has it");
    if let Err(error) = journal.told(told).await {
        let error = nex_protocol::envelope::chain(&error);
        tracing::error!(error, "the journal does not forget events that were told; the next start tells them again");
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_refused_first_events_last_and_nobody_waits() {
        let outbox = Outbox::new();
        let body = Bytes::from(vec![0; 64 * 1024]);
        let mut logs = 0;
        while outbox.log("log".into(), body.clone()).is_ok() {
            logs += 1;
        }
        assert!(logs > 100 && logs * body.len() <= LOG_BYTES, "{logs}");
        assert_eq!(outbox.lock().lost_events, 0);
        while outbox.lock().lost_events == 0 {
            outbox.event("event".into(), body.clone());
        }
        assert!(outbox.lock().messages.len() >= 2 * logs - 2);
        assert!(outbox.lock().bytes <= EVENT_BYTES);
    }
}

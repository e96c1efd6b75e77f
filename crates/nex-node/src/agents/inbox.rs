//! What an agent said of one instance and nobody has read yet. Events wait until there is room, logs are dropped beyond their bytes and
//! counted, host calls are refused beyond their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_nats::Message;
use bytes::Bytes;
use nex_protocol::agent::{AgentEvent, Logs};
use tokio::sync::mpsc;

/// Events that may wait; the agent keeps the next ones.
const EVENTS: usize = 64;
/// Messages of log lines that may wait, and their bytes.
const LOG_MESSAGES: usize = 1_024;
const LOG_BYTES: usize = 2 * 1024 * 1024;
/// Largest message of log lines that is looked at, bytes.
const MAX_LOG: usize = 512 * 1024;
/// Host calls that may wait for the task that serves them.
const HOST_CALLS: usize = 128;

/// A host call of an instance; its reply subject is the agent's own.
#[derive(Debug)]
pub struct HostCall {
    /// `<service>.<method>`
    pub call: String,
    /// The request.
    pub message: Message,
}

/// The writing end.
#[derive(Debug, Clone)]
pub(super) struct InboxSender {
    pub(super) events: mpsc::Sender<AgentEvent>,
    logs: mpsc::Sender<Bytes>,
    budget: Arc<LogBudget>,
    /// Number of the last message of log lines.
    last_log: u64,
    pub(super) host_calls: mpsc::Sender<HostCall>,
}

/// The reading end.
#[derive(Debug)]
pub struct Inbox {
    /// Lifecycle events, in order.
    pub events: mpsc::Receiver<AgentEvent>,
    /// Log lines.
    pub logs: LogReceiver,
    /// Host calls, until somebody takes them to serve.
    pub host_calls: Option<mpsc::Receiver<HostCall>>,
}

#[derive(Debug, Default)]
struct LogBudget {
    waiting: AtomicUsize,
    lost_bytes: AtomicU64,
}

/// Log lines that wait.
#[derive(Debug)]
pub struct LogReceiver {
    messages: mpsc::Receiver<Bytes>,
    budget: Arc<LogBudget>,
}

/// A batch of log lines, and how many bytes of lines were dropped before it.
#[derive(Debug)]
pub struct LogBatch {
    /// The lines.
    pub logs: Logs,
    /// Bytes of unread messages that were dropped here.
    pub lost_bytes: u64,
}

/// An empty inbox.
pub(super) fn inbox() -> (InboxSender, Inbox) {
    let (events, event_inbox) = mpsc::channel(EVENTS);
    let (logs, messages) = mpsc::channel(LOG_MESSAGES);
    let (host_calls, host_call_inbox) = mpsc::channel(HOST_CALLS);
    let budget = Arc::new(LogBudget::default());
    let sender = InboxSender { events, logs, budget: Arc::clone(&budget), last_log: 0, host_calls };
    (sender, Inbox { events: event_inbox, logs: LogReceiver { messages, budget }, host_calls: Some(host_call_inbox) })
}

/// An inbox in which nothing will ever be, for who has no instance any more.
pub(crate) fn closed() -> Inbox {
    inbox().1
}

impl InboxSender {
    /// Takes a message of log lines, or drops and counts it. One that has no higher number than the last one is that one again.
    pub(super) fn log(&mut self, sequence: Option<u64>, payload: Bytes) {
        if let Some(sequence) = sequence {
            if sequence <= self.last_log {
                return;
            }
            self.last_log = sequence;
        }
        let bytes = payload.len();
        let waiting = self.budget.waiting.fetch_add(bytes, Ordering::AcqRel);
        if bytes > MAX_LOG || waiting.saturating_add(bytes) > LOG_BYTES || self.logs.try_send(payload).is_err() {
            self.budget.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.budget.lost_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

impl LogReceiver {
    /// The next batch; nothing when the instance is closed and all were read.
    ///
    /// # Cancel safety
    /// No batch is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<LogBatch> {
        self.messages.recv().await.map(|payload| self.read(&payload))
    }

    /// The next batch if one waits.
    pub fn try_recv(&mut self) -> Option<LogBatch> {
        self.messages.try_recv().ok().map(|payload| self.read(&payload))
    }

    /// What an agent sends is read here, by the reader: a flood of it costs its own workload's task and nobody else's.
    fn read(&self, payload: &Bytes) -> LogBatch {
        self.budget.waiting.fetch_sub(payload.len(), Ordering::AcqRel);
        let logs = serde_json::from_slice(payload).unwrap_or_else(|error| {
            tracing::debug!(%error, "an agent sent log lines that cannot be read");
            Logs::default()
        });
        LogBatch { logs, lost_bytes: self.budget.lost_bytes.swap(0, Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logs_beyond_the_budget_are_dropped_and_counted_and_room_comes_back() {
        let (mut sender, mut inbox) = inbox();
        let line = |text: &str| Bytes::from(format!(r#"{{"lines":[{{"stderr":false,"text":"{text}"}}],"dropped":0}}"#));
        let large = line(&"x".repeat(MAX_LOG - 100));
        let fitting = LOG_BYTES / large.len();
        (0..=fitting).for_each(|_| sender.log(None, large.clone()));
        let first = inbox.logs.recv().await.unwrap();
        assert_eq!((first.logs.lines.len(), first.lost_bytes), (1, large.len() as u64));
        for _ in 1..fitting {
            inbox.logs.recv().await.unwrap();
        }
        sender.log(None, line(&"x".repeat(MAX_LOG)));
        sender.log(None, line("after"));
        let second = inbox.logs.recv().await.unwrap();
        let larger_than_any = line(&"x".repeat(MAX_LOG)).len() as u64;
        assert_eq!((second.logs.lines[0].text.as_str(), second.lost_bytes), ("after", larger_than_any));
        assert!(inbox.logs.try_recv().is_none());
    }

    #[tokio::test]
    async fn nonsense_is_an_empty_batch() {
        let (mut sender, mut inbox) = inbox();
        sender.log(None, "}{".into());
        assert!(inbox.logs.recv().await.unwrap().logs.lines.is_empty());
    }
}

//! Lines of workloads on `$NEX.logs.<namespace>.<node>.<name>.<id>`: bounded in rate, so one chatty workload harms nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject;

/// Lines one workload may publish in a second; further ones are counted and dropped.
const LINES_PER_SECOND: u32 = 5_000;
/// Longest line published, bytes.
const LINE_BYTES: usize = 16 * 1024;

/// The log of one workload.
#[derive(Debug)]
pub struct Log {
    nats: Client,
    subject: Arc<str>,
    id: WorkloadId,
    window: Instant,
    written: u32,
    dropped: u64,
}

impl Log {
    /// The log of a workload on this node.
    #[must_use]
    pub fn new(nats: Client, node: &NodeId, namespace: &Namespace, name: &WorkloadName, id: &WorkloadId) -> Self {
        let subject = subject::log(namespace.as_str(), node.as_str(), name.as_str(), id.as_str()).into();
        Self { nats, subject, id: id.clone(), window: Instant::now(), written: 0, dropped: 0 }
    }

    /// Publishes a line, or drops it when there were too many; says how many were dropped as soon as it may speak again.
    pub async fn line(&mut self, level: Level, text: String) {
        if self.window.elapsed() >= Duration::from_secs(1) {
            (self.window, self.written) = (Instant::now(), 0);
            self.confess().await;
        }
        if self.written >= LINES_PER_SECOND {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.written += 1;
        self.publish(level, text).await;
    }

    /// Counts lines that were lost before they came here.
    pub fn lost(&mut self, lines: u64) {
        self.dropped = self.dropped.saturating_add(lines);
    }

    /// Says how many lines were lost, if any were.
    pub async fn confess(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.publish(Level::Warn, format!("{dropped} log lines were dropped: more than {LINES_PER_SECOND} in a second"))
                .await;
        }
    }

    async fn publish(&self, level: Level, mut text: String) {
        if text.len() > LINE_BYTES {
            let cut = (0..=LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        let line = LogLine { text, level, id: self.id.to_string() };
        let body = serde_json::to_vec(&line).unwrap_or_default();
        if let Err(error) = self.nats.publish(self.subject.to_string(), body.into()).await {
            tracing::debug!(workload_id = %self.id, %error, "a log line could not be published");
        }
    }
}

//! Lines of workloads on `$NEX.logs.<namespace>.<node>.<name>.<id>`: bounded in rate, so one chatty workload harms nobody; what is lost is
//! counted and said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject;

use crate::outbox::Outbox;
use crate::tail::Tail;

/// Lines one workload may publish in a second; further ones are counted and dropped.
const LINES_PER_SECOND: u32 = 5_000;
/// Longest line published, bytes.
const LINE_BYTES: usize = 16 * 1024;

/// The log of one workload.
#[derive(Debug)]
pub struct Log {
    outbox: Outbox,
    tail: Option<Arc<Tail>>,
    subject: String,
    id: WorkloadId,
    window: Instant,
    written: u32,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Log {
    /// The log of a workload on this node.
    #[must_use]
    pub fn new(outbox: Outbox, node: &NodeId, namespace: &Namespace, name: &WorkloadName, id: &WorkloadId) -> Self {
        let subject = subject::log(namespace.as_str(), node.as_str(), name.as_str(), id.as_str());
        let window = Instant::now();
        Self { outbox, tail: None, subject, id: id.clone(), window, written: 0, dropped_lines: 0, dropped_bytes: 0 }
    }

    /// The same, keeping its last lines here.
    #[must_use]
    pub fn keeping(self, tail: &Arc<Tail>) -> Self {
        Self { tail: Some(Arc::clone(tail)), ..self }
    }

    /// Publishes a line, or drops and counts it when there were too many; reports what was dropped as soon as there is room again.
    pub fn line(&mut self, level: Level, text: String) {
        if let Some(tail) = &self.tail {
            tail.push(level, &text);
        }
        if self.window.elapsed() >= Duration::from_secs(1) {
            (self.window, self.written) = (Instant::now(), 0);
            self.report_dropped();
        }
        if self.written >= LINES_PER_SECOND || !self.publish(level, text) {
            self.lost(1, 0);
            return;
        }
        self.written += 1;
    }

    /// Counts what was lost before it came here: whole lines, and bytes of lines that nobody read.
    pub fn lost(&mut self, lines: u64, bytes: u64) {
        self.dropped_lines = self.dropped_lines.saturating_add(lines);
        self.dropped_bytes = self.dropped_bytes.saturating_add(bytes);
    }

    /// Says what was lost, if anything was and there is room to say it.
    pub fn report_dropped(&mut self) {
        let (lines, bytes) = (self.dropped_lines, self.dropped_bytes);
        if lines == 0 && bytes == 0 {
            return;
        }
        let more = if bytes > 0 { format!(", and {bytes} bytes that nobody could read in time") } else { String::new() };
        let text = format!("{lines} log lines were dropped: more than {LINES_PER_SECOND} in a second, or NATS was slow{more}");
        if self.publish(Level::Warn, text) {
            (self.dropped_lines, self.dropped_bytes) = (0, 0);
        }
    }

    fn publish(&self, level: Level, mut text: String) -> bool {
        if text.len() > LINE_BYTES {
            let cut = (0..=LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        let line = LogLine { text, level, id: self.id.to_string() };
        self.outbox.log(self.subject.clone(), serde_json::to_vec(&line).unwrap_or_default().into()).is_ok()
    }
}

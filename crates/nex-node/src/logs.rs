//! Lines of workloads on `$NEX.logs.<namespace>.<node>.<name>.<id>`: bounded in rate, so one chatty workload harms nobody; what is lost is
//! counted and said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::log::{Level, LogLine};
use nex_protocol::subject;

use crate::history::History;
use crate::outbox::Outbox;
use crate::quota::LogShare;
use crate::tail::Tail;

/// Lines one workload may publish in a second; further ones are counted and dropped.
const LINES_PER_SECOND: u32 = 5_000;
/// Longest line published, bytes.
const LINE_BYTES: usize = 16 * 1024;

/// The log of one workload.
#[derive(Debug)]
pub struct Log {
    outbox: Outbox,
    history: History,
    tail: Option<Arc<Tail>>,
    share: LogShare,
    /// Whose quota was used up last.
    full: Option<String>,
    subject: String,
    namespace: Namespace,
    name: WorkloadName,
    id: WorkloadId,
    window: Instant,
    written: u32,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Log {
    /// The log of a workload on this node.
    #[must_use]
    pub fn new((outbox, history): (Outbox, History), node: &NodeId, of: (&Namespace, &WorkloadName, &WorkloadId)) -> Self {
        let (namespace, name, id) = of;
        let subject = subject::log(namespace.as_str(), node.as_str(), name.as_str(), id.as_str());
        Self {
            outbox,
            history,
            tail: None,
            share: LogShare::default(),
            full: None,
            subject,
            namespace: namespace.clone(),
            name: name.clone(),
            id: id.clone(),
            window: Instant::now(),
            written: 0,
            dropped_lines: 0,
            dropped_bytes: 0,
        }
    }

    /// The same, keeping its last lines here.
    #[must_use]
    pub fn keeping(self, tail: &Arc<Tail>) -> Self {
        Self { tail: Some(Arc::clone(tail)), ..self }
    }

    /// The same, within what those have left for lines who pay for them.
    #[must_use]
    pub fn within(self, share: LogShare) -> Self {
        Self { share, ..self }
    }

    /// Keeps and publishes a line, or drops and counts it when there were too many; reports what was dropped as soon as there is room
    /// again. What is only not published, because NATS is slow, is kept.
    pub fn line(&mut self, level: Level, text: String) {
        if let Some(tail) = &self.tail {
            tail.push(level, &text);
        }
        if self.window.elapsed() >= Duration::from_secs(1) {
            (self.window, self.written) = (Instant::now(), 0);
            self.report_dropped();
        }
        if self.written >= LINES_PER_SECOND {
            return self.lost(1, 0);
        }
        if let Err(who) = self.share.take(text.len().min(LINE_BYTES), Instant::now()) {
            self.full = Some(who.to_string());
            return self.lost(1, 0);
        }
        self.written += 1;
        if !self.publish(level, text) {
            self.lost(1, 0);
        }
    }

    /// Counts what was lost before it came here: whole lines, and bytes of lines that nobody read.
    pub fn lost(&mut self, lines: u64, bytes: u64) {
        self.dropped_lines = self.dropped_lines.saturating_add(lines);
        self.dropped_bytes = self.dropped_bytes.saturating_add(bytes);
    }

    /// Says what was lost, if anything was and there is room to say it.
    pub fn report_dropped(&mut self) {
        let (lines, bytes) = (self.dropped_lines, self.dropped_bytes);
        if (lines == 0 && bytes == 0) || self.outbox.is_full() {
            return;
        }
        let more = if bytes > 0 { format!(", and {bytes} bytes that nobody could read in time") } else { String::new() };
        let why = match &self.full {
            Some(who) => format!("the quota of {who} for log lines is used up"),
            None => format!("more than {LINES_PER_SECOND} in a second, or NATS was slow"),
        };
        let text = format!("{lines} log lines were dropped: {why}{more}");
        if self.publish(Level::Warn, text) {
            (self.dropped_lines, self.dropped_bytes, self.full) = (0, 0, None);
        }
    }

    fn publish(&self, level: Level, mut text: String) -> bool {
        if text.len() > LINE_BYTES {
            let cut = (0..=LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        let seq = self.history.line((&self.namespace, &self.name, &self.id), level, &text);
        let line = LogLine { text, level, id: self.id.to_string(), seq };
        self.outbox.log(self.subject.clone(), serde_json::to_vec(&line).unwrap_or_default().into()).is_ok()
    }
}

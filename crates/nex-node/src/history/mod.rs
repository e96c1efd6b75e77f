//! What a node keeps of log lines and events, on its disk, bounded in bytes: for who asks what happened, also after a crash of the node.
//!
//! Nobody who has something to keep waits for the disk: it is taken into a bounded [`queue`], which a task of its own writes to [`files`].
//! What cannot be kept is counted, and the next record of that ring is preceded by how much was lost. A killed node loses what was in the
//! queue. Records have numbers that grow across processes, so that an asker can go on where he was, and tell what he has seen already.

mod files;
mod page;
mod queue;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_process::{Deadline, TaskScope};
use nex_protocol::control::{HistoryEvent, HistoryLine, HistoryRecord, HistoryRequest, HistoryResponse, HistorySummary};
use nex_protocol::event::{CloudEvent, kind};
use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::log::Level;
use nex_protocol::subject::HistoryKind;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};

use self::files::{Files, RingName};
use self::page::Page;
use self::queue::{Entry, Queue};
use crate::clock;

/// Readers at once; others wait.
const READERS: usize = 2;
/// Largest event that is kept, bytes.
const EVENT: usize = 64 * 1024;
/// More records than ever wait: so many numbers are left out after a crash, should the clock not tell them apart.
const GAP: u64 = 1_000_000;

/// Why a page cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The disk, or other readers.
    #[error("the node had no time to read what it has kept; try again")]
    Late,
}

#[derive(Debug)]
struct Inner {
    node: NodeId,
    queue: Mutex<Queue>,
    files: Mutex<Files>,
    wake: Notify,
    /// The number up to which everything is on the disk, or lost.
    written: watch::Sender<u64>,
    readers: Arc<Semaphore>,
    lost: Mutex<u64>,
}

/// The history of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    inner: Arc<Inner>,
}

impl History {
    /// What is in a directory, within so many bytes. One that cannot be read is said, and another attempt is made with each record.
    #[must_use]
    pub fn open(root: PathBuf, limit: u64, node: &NodeId) -> Self {
        let files = Files::open(root.clone(), limit).unwrap_or_else(|error| {
            tracing::error!(path = %root.display(), %error, "what was kept of logs and events cannot be read");
            Files::none(root, limit)
        });
        let next = clock::unix_micros().max(files.newest.saturating_add(GAP));
        let inner = Inner {
            node: node.clone(),
            queue: Mutex::new(Queue::new(next)),
            files: Mutex::new(files),
            wake: Notify::new(),
            written: watch::Sender::new(next - 1),
            readers: Arc::new(Semaphore::new(READERS)),
            lost: Mutex::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to write, in a scope.
    pub fn start(&self, scope: &TaskScope) {
        let (this, cancelled) = (self.clone(), scope.cancel_token());
        scope.spawn("history", async move {
            cancelled.run_until_cancelled(this.write_all()).await;
        });
    }

    /// Keeps a line of a workload, and says its number if there is room.
    pub fn line(&self, of: (&Namespace, &WorkloadName, &WorkloadId), level: Level, text: &str) -> Option<u64> {
        let ((namespace, name, id), at_ms) = (of, clock::unix_millis());
        let line = |seq| HistoryLine { seq, at_ms, id: id.to_string(), name: name.to_string(), level, text: text.to_owned() };
        let ring = RingName { namespace: namespace.clone(), kind: HistoryKind::Logs };
        self.push(ring, text.len(), |seq| Entry::Line(line(seq)))
    }

    /// Keeps an event.
    pub fn event(&self, namespace: &str, event: &CloudEvent) {
        let Ok(namespace) = namespace.parse() else { return };
        let bytes = serde_json::to_vec(event).map_or(0, |body| body.len());
        let (ring, at_ms) = (RingName { namespace, kind: HistoryKind::Events }, clock::unix_millis());
        if bytes > EVENT {
            lock(&self.inner.queue).lost(ring, 1, "an event is too large");
            return self.inner.count_lost(1, "an event is too large");
        }
        self.push(ring, bytes, |seq| Entry::Event(HistoryEvent { seq, at_ms, event: event.clone() }));
    }

    fn push(&self, ring: RingName, text: usize, entry: impl FnOnce(u64) -> Entry) -> Option<u64> {
        let seq = lock(&self.inner.queue).push(ring, text, entry);
        if seq.is_none() {
            self.inner.count_lost(1, "the disk is too slow");
        }
        self.inner.wake.notify_one();
        seq
    }

    /// Waits until what was told so far is on the disk, or lost; says whether it was in time.
    pub async fn flushed(&self, by: Deadline) -> bool {
        let newest = lock(&self.inner.queue).newest();
        let mut written = self.inner.written.subscribe();
        by.bound(written.wait_for(|written| *written >= newest)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// How much there is of it.
    #[must_use]
    pub fn summary(&self) -> HistorySummary {
        let lost = *lock(&self.inner.lost);
        let files = lock(&self.inner.files);
        HistorySummary { bytes: files.bytes(), max_bytes: files.limit(), lost }
    }

    /// A page of what is kept of a namespace.
    ///
    /// # Errors
    /// [`HistoryError::Late`]
    pub async fn page(
        &self,
        namespace: Namespace,
        kind: HistoryKind,
        request: HistoryRequest,
        by: Deadline,
    ) -> Result<HistoryResponse, HistoryError> {
        let name = RingName { namespace, kind };
        let reader = by.bound(Arc::clone(&self.inner.readers).acquire_owned()).await.map_err(|_late| HistoryError::Late)?;
        let newest = lock(&self.inner.queue).newest();
        if !self.flushed(by).await {
            return Err(HistoryError::Late);
        }
        let inner = Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || {
            let page = inner.read(&name, request, newest);
            // Only now is it the next one's turn, whoever has stopped to wait.
            drop(reader);
            page
        });
        by.bound(read).await.ok().and_then(Result::ok).ok_or(HistoryError::Late)
    }

    async fn write_all(self) {
        loop {
            self.inner.wake.notified().await;
            let (entries, losses, newest) = {
                let mut queue = lock(&self.inner.queue);
                let (entries, losses) = queue.take();
                let noted: Vec<_> = losses.into_iter().map(|(name, loss)| (queue.number(), name, loss)).collect();
                (entries, noted, queue.newest())
            };
            let inner = Arc::clone(&self.inner);
            if tokio::task::spawn_blocking(move || inner.write(entries, losses)).await.is_err() {
                tracing::error!("keeping log lines and events hit a bug of this node");
            }
            self.inner.written.send_replace(newest);
        }
    }
}

/// What is written to one ring.
struct Batch {
    first: u64,
    text: Vec<u8>,
    records: u64,
    /// Losses of earlier that it tells of.
    losses: u64,
}

impl Batch {
    fn from(first: u64) -> Self {
        Self { first, text: Vec::new(), records: 0, losses: 0 }
    }
}

impl Inner {
    fn read(&self, name: &RingName, request: HistoryRequest, newest: u64) -> HistoryResponse {
        let until = request.until.unwrap_or(newest);
        let segments = lock(&self.files).segments(name);
        let mut response = HistoryResponse { node_id: self.node.to_string(), until, ..HistoryResponse::default() };
        match name.kind {
            HistoryKind::Logs => response.lines = Self::told(&mut response, page::read(&segments, request, newest)),
            HistoryKind::Events => response.events = Self::told(&mut response, page::read(&segments, request, newest)),
        }
        if response.damaged > 0 {
            tracing::warn!(namespace = %name.namespace, records = response.damaged, "damaged records of the history are passed over");
        }
        response
    }

    fn told<T: HistoryRecord + DeserializeOwned>(response: &mut HistoryResponse, page: Page<T>) -> Vec<T> {
        (response.next, response.damaged, response.is_cut) = (page.next, page.damaged, page.is_cut);
        page.records
    }

    fn write(&self, entries: Vec<(RingName, Entry)>, losses: Vec<(u64, RingName, (u64, String))>) {
        let mut batches = BTreeMap::<RingName, Batch>::new();
        for (name, entry) in entries {
            let seq = match &entry {
                Entry::Line(line) => line.seq,
                Entry::Event(event) => event.seq,
            };
            let batch = batches.entry(name).or_insert_with(|| Batch::from(seq));
            match entry {
                Entry::Line(line) => record::write(seq, &line, &mut batch.text),
                Entry::Event(event) => record::write(seq, &event, &mut batch.text),
            }
            batch.records += 1;
        }
        for (seq, name, (count, why)) in losses {
            let batch = batches.entry(name.clone()).or_insert_with(|| Batch::from(seq));
            match name.kind {
                HistoryKind::Logs => record::write(seq, &lost_lines(seq, count, &why), &mut batch.text),
                HistoryKind::Events => record::write(seq, &lost_events(seq, count, &why, &self.node), &mut batch.text),
            }
            batch.losses += count;
        }
        for (name, Batch { first, text, records, losses }) in batches {
            // Events are few, and what a crash of the host must not take.
            let is_durable = name.kind == HistoryKind::Events;
            if let Err(error) = lock(&self.files).append(&name, first, &text, is_durable) {
                self.count_lost(records, &error.to_string());
                // What was lost before is told with it, later.
                lock(&self.queue).lost(name, records + losses, &error.to_string());
            }
        }
    }

    fn count_lost(&self, count: u64, why: &str) {
        let mut lost = lock(&self.lost);
        let before = *lost;
        *lost = before.saturating_add(count);
        // Said at once, and each time it is twice as many.
        if count > 0 && (before == 0 || before.ilog2() < lost.ilog2()) {
            tracing::error!(lost = *lost, "log lines and events of workloads cannot be kept: {why}");
        }
    }
}

fn lost_lines(seq: u64, count: u64, why: &str) -> HistoryLine {
    let text = format!("{count} log lines were not kept by the node: {why}");
    HistoryLine { seq, at_ms: clock::unix_millis(), id: String::new(), name: String::new(), level: Level::Warn, text }
}

fn lost_events(seq: u64, count: u64, why: &str, node: &NodeId) -> HistoryEvent {
    let event = CloudEvent::new(kind::HISTORY_LOST, node.to_string(), clock::rfc3339(), json!({"lost": count, "reason": why}));
    HistoryEvent { seq, at_ms: clock::unix_millis(), event }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

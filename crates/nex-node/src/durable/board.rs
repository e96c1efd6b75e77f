//! What is seen of durable triggers: where each one is, how far, and what went wrong last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::consumer;
use nex_protocol::control::TriggerSummary;
use nex_protocol::id::WorkloadId;

use super::consumer::Seen;
use crate::clock;

/// Longest error kept.
const MAX_ERROR: usize = 500;

/// The triggers of a node's workloads.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<WorkloadId, Vec<Arc<Entry>>>>);

/// One trigger of one workload.
#[derive(Debug)]
pub(super) struct Entry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    summary: TriggerSummary,
    seen: Option<Seen>,
}

impl Board {
    /// The entries of a workload that has just been started, or started again: how far its triggers were is not forgotten.
    pub(super) fn open(&self, workload: &WorkloadId, triggers: impl Iterator<Item = TriggerSummary>) -> Vec<Arc<Entry>> {
        let mut board = lock(&self.0);
        let entries = board.entry(workload.clone()).or_default();
        if entries.is_empty() {
            *entries = triggers.map(|summary| Arc::new(Entry(Mutex::new(Inner { summary, seen: None })))).collect();
        }
        entries.clone()
    }

    /// Forgets a workload.
    pub(super) fn close(&self, workload: &WorkloadId) {
        lock(&self.0).remove(workload);
    }

    pub(super) fn read(&self, workload: &WorkloadId) -> Vec<TriggerSummary> {
        let entries = lock(&self.0).get(workload).cloned().unwrap_or_default();
        entries.iter().map(|entry| entry.lock().summary.clone()).collect()
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// How far it was when it was last looked at.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.lock().seen
    }

    /// It is served.
    pub(super) fn bound(&self, seen: Seen) {
        let mut inner = self.lock();
        inner.seen = Some(seen);
        inner.summary.state = "active".to_owned();
    }

    /// It was looked at.
    pub(super) fn looked(&self, info: &consumer::Info) {
        let mut inner = self.lock();
        inner.summary.waiting = info.num_pending;
        inner.summary.unacknowledged = info.num_ack_pending as u64;
        if let Some(seen) = &mut inner.seen {
            seen.floor = info.ack_floor.stream_sequence;
        }
    }

    /// So many wait for their turn.
    pub(super) fn held_back(&self, count: usize) {
        self.lock().summary.held_back = count as u64;
    }

    /// A message came, and so many wait behind it.
    pub(super) fn came(&self, waiting: u64) {
        self.lock().summary.waiting = waiting;
    }

    pub(super) fn done(&self) {
        self.lock().summary.done += 1;
    }

    pub(super) fn retried(&self, error: &str) {
        let mut inner = self.lock();
        inner.summary.retried += 1;
        inner.error(error);
    }

    pub(super) fn dead(&self, error: &str) {
        let mut inner = self.lock();
        inner.summary.dead += 1;
        inner.error(error);
    }

    /// Something went wrong that is not a message's.
    pub(super) fn error(&self, error: &str) {
        self.lock().error(error);
    }

    /// What could not be asked was asked.
    pub(super) fn heard(&self) {
        "active".clone_into(&mut self.lock().summary.state);
    }

    /// It cannot be served now. Says whether that is news.
    pub(super) fn failing(&self, error: &str) -> bool {
        let mut inner = self.lock();
        let is_news = inner.summary.state != "failing" || inner.summary.last_error.as_deref() != Some(error);
        "failing".clone_into(&mut inner.summary.state);
        inner.error(error);
        is_news
    }
}

impl Inner {
    fn error(&mut self, error: &str) {
        self.summary.last_error = Some(error.chars().take(MAX_ERROR).collect());
        self.summary.last_error_at = Some(clock::unix_seconds());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What is to be kept and is not on the disk yet: bounded in bytes. Numbers are given here, in the order in which records are written.

use std::collections::BTreeMap;
use std::mem;

use nex_protocol::control::{HistoryEvent, HistoryLine};

use super::files::RingName;

/// Bytes that may wait.
const BYTES: usize = 8 * 1024 * 1024;
/// What a record costs besides its text.
const OVERHEAD: usize = 256;
/// Most rings whose losses are told apart.
const LOSERS: usize = 1_024;

/// A record on its way.
#[derive(Debug)]
pub(super) enum Entry {
    /// A line.
    Line(HistoryLine),
    /// An event.
    Event(HistoryEvent),
}

/// How many records of each ring were lost, and why.
pub(super) type Losses = BTreeMap<RingName, (u64, String)>;

/// What waits.
#[derive(Debug)]
pub(super) struct Queue {
    entries: Vec<(RingName, Entry)>,
    bytes: usize,
    next: u64,
    losses: Losses,
}

impl Queue {
    /// An empty queue, whose first record has this number.
    pub(super) fn new(next: u64) -> Self {
        Self { entries: Vec::new(), bytes: 0, next, losses: Losses::new() }
    }

    /// Takes a record and says its number; nothing where there is no room for it, which is counted.
    pub(super) fn push(&mut self, name: RingName, text: usize, entry: impl FnOnce(u64) -> Entry) -> Option<u64> {
        let cost = text + OVERHEAD;
        if self.bytes + cost > BYTES {
            self.lost(name, 1, "the disk is too slow");
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.bytes += cost;
        self.entries.push((name, entry(seq)));
        Some(seq)
    }

    /// Counts what is lost.
    pub(super) fn lost(&mut self, name: RingName, count: u64, why: &str) {
        if self.losses.contains_key(&name) || self.losses.len() < LOSERS {
            let loss = self.losses.entry(name).or_insert_with(|| (0, String::new()));
            loss.0 += count;
            why.clone_into(&mut loss.1);
        }
    }

    /// All that waits, with what was lost meanwhile.
    pub(super) fn take(&mut self) -> (Vec<(RingName, Entry)>, Losses) {
        self.bytes = 0;
        (mem::take(&mut self.entries), mem::take(&mut self.losses))
    }

    /// A number that nothing else gets.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The number given last.
    pub(super) fn newest(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

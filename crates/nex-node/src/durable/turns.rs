//! The deliveries of an ordered trigger that wait for their turn: each asks, and is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::key_queues::{Arrival, Key, KeyQueues, Ticket, Told, Unknown};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queues: KeyQueues,
    waiting: HashMap<Ticket, oneshot::Sender<Turn>>,
}

/// What a delivery is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is its turn.
    Begin,
    /// The message is dealt with already: its stream has not heard of it.
    Done,
    /// It is not to be dealt with.
    Stale,
}

/// One delivery. If it ends without a word, the message is one that comes again.
#[derive(Debug)]
pub(super) struct Delivery {
    turns: Arc<Turns>,
    ticket: Ticket,
    turn: oneshot::Receiver<Turn>,
}

impl Turns {
    pub(super) fn arrive(self: &Arc<Self>, arrival: Arrival) -> Delivery {
        let (sender, turn) = oneshot::channel();
        let mut inner = self.lock();
        let (ticket, told) = inner.queues.arrive(arrival);
        inner.waiting.insert(ticket, sender);
        inner.tell(told);
        drop(inner);
        Delivery { turns: Arc::clone(self), ticket, turn }
    }

    /// Deliveries may have been missed, or be counted anew.
    pub(super) fn interrupted(&self) {
        self.lock().queues.interrupted();
    }

    /// Nothing of it has a turn any more.
    pub(super) fn abandon(&self) {
        self.lock().waiting.clear();
    }

    /// How far the consumer says all is dealt with.
    pub(super) fn at_floor(&self, floor: u64) {
        let mut inner = self.lock();
        let told = inner.queues.at_floor(floor);
        inner.tell(told);
    }

    pub(super) fn has_gap(&self) -> bool {
        self.lock().queues.has_gap()
    }

    pub(super) fn unknown(&self, delivered: u64) -> Option<Unknown> {
        self.lock().queues.unknown(delivered)
    }

    pub(super) fn found(&self, sequence: u64, key: &Key) {
        self.lock().queues.found(sequence, key);
    }

    pub(super) fn read(&self, unknown: Unknown, up_to: u64) {
        let mut inner = self.lock();
        let told = inner.queues.read(unknown, up_to);
        inner.tell(told);
    }

    pub(super) fn in_hand(&self) -> usize {
        self.lock().queues.in_hand()
    }

    pub(super) fn hand(&self) -> Vec<(u64, bool)> {
        self.lock().queues.hand()
    }

    pub(super) fn moves(&self) -> u64 {
        self.lock().queues.moves()
    }

    /// Nothing is missing, if nothing has moved since.
    pub(super) fn forget_missing(&self, moves: u64) {
        let mut inner = self.lock();
        if inner.queues.moves() == moves {
            let told = inner.queues.found_none();
            inner.tell(told);
        }
    }

    pub(super) fn held_back(&self) -> usize {
        self.lock().queues.held_back()
    }

    pub(super) fn is_missing_some(&self) -> bool {
        self.lock().queues.is_missing_some()
    }

    fn finished(&self, ticket: Ticket, is_over: bool) {
        let mut inner = self.lock();
        inner.waiting.remove(&ticket);
        let told = inner.queues.finished(ticket, is_over);
        inner.tell(told);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, told: Vec<Told>) {
        for told in told {
            let (ticket, turn) = match told {
                Told::Begin(ticket) => (ticket, Turn::Begin),
                Told::Done(ticket) => (ticket, Turn::Done),
                Told::Stale(ticket) => (ticket, Turn::Stale),
            };
            // Whoever has gone says so when it goes.
            self.waiting.remove(&ticket).map(|waiting| waiting.send(turn).ok());
        }
    }
}

impl Delivery {
    /// Waits for its turn.
    pub(super) async fn turn(&mut self) -> Turn {
        (&mut self.turn).await.unwrap_or(Turn::Stale)
    }

    /// The message is dealt with.
    pub(super) fn end(self) {
        self.turns.finished(self.ticket, true);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.turns.finished(self.ticket, false);
    }
}

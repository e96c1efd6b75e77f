//! The messages of each key.

use std::collections::{BTreeSet, HashMap};

use super::Key;

/// What there is of each key.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<Key, Lane>);

/// What there is of one key.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// In hand.
    pub(super) hand: BTreeSet<u64>,
    /// Neither in hand nor dealt with.
    pub(super) missing: BTreeSet<u64>,
    pub(super) is_running: bool,
}

impl Lanes {
    pub(super) fn at(&mut self, key: &Key) -> &mut Lane {
        self.0.entry(key.clone()).or_default()
    }

    /// Forgets a key that has nothing.
    pub(super) fn tidy(&mut self, key: &Key) {
        if self.0.get(key).is_some_and(|lane| lane.hand.is_empty() && lane.missing.is_empty()) {
            self.0.remove(key);
        }
    }

    /// Keys of which something is in hand.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.0.iter().filter(|(_, lane)| !lane.hand.is_empty()).map(|(key, _)| key.clone()).collect()
    }

    /// The message of a key that is next, if it is in hand and nothing of the key is under way.
    pub(super) fn next(&self, key: &Key) -> Option<u64> {
        let lane = self.0.get(key).filter(|lane| !lane.is_running)?;
        let first = lane.hand.first()?;
        lane.missing.first().is_none_or(|missing| missing > first).then_some(*first)
    }
}

//! How many to make, and when: the warm pool as a pure state machine. No clock, no I/O.
//!
//! ```text
//!   Lease ─► ready? ─yes─► Hand out, Create one more
//!              └no──► waits; Create one for it
//!   Created ─► a waiter? hand out : ready        Failed ─► Retry after back-off
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

/// The state of a pool: counts only; the driver owns the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How many are to be ready.
    pub target: usize,
    /// Ready now.
    pub ready: usize,
    /// Being made now.
    pub pending: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Failures since the last success.
    pub failures: u32,
    /// Whether a back-off runs; nothing is made meanwhile.
    pub backing_off: bool,
}

/// An input of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The pool is to be filled.
    Start,
    /// Somebody asks for one.
    Lease,
    /// A waiting caller gave up.
    GaveUp,
    /// One was made.
    Created,
    /// One could not be made.
    Failed,
    /// A ready one died.
    Died,
    /// The back-off is over.
    BackoffOver,
}

/// An output of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Hand a ready item to the first waiting caller.
    HandOut,
    /// Let the caller wait.
    Enqueue,
    /// Begin to make one.
    Create,
    /// Send [`Event::BackoffOver`] after this time.
    BackOff(Duration),
}

/// At most this many are made at once.
pub const PARALLEL: usize = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl State {
    /// An empty pool.
    #[must_use]
    pub fn new(target: usize) -> Self {
        Self { target, ready: 0, pending: 0, waiting: 0, failures: 0, backing_off: false }
    }

    /// Moves the pool.
    #[must_use]
    pub fn step(mut self, event: Event) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match event {
            Event::Start => {}
            Event::Lease if self.ready > 0 => {
                self.ready -= 1;
                effects.push(Effect::HandOut);
            }
            Event::Lease => {
                self.waiting += 1;
                effects.push(Effect::Enqueue);
            }
            Event::GaveUp => self.waiting = self.waiting.saturating_sub(1),
            Event::Created => {
                self.pending = self.pending.saturating_sub(1);
                self.failures = 0;
                self.ready += 1;
                if self.waiting > 0 {
                    self.waiting -= 1;
                    self.ready -= 1;
                    effects.push(Effect::HandOut);
                }
            }
            Event::Failed => {
                self.pending = self.pending.saturating_sub(1);
                self.failures = self.failures.saturating_add(1);
                if !self.backing_off {
                    self.backing_off = true;
                    effects.push(Effect::BackOff(backoff(self.failures)));
                }
            }
            Event::Died => self.ready = self.ready.saturating_sub(1),
            Event::BackoffOver => self.backing_off = false,
        }
        while !self.backing_off && self.pending < PARALLEL && self.ready + self.pending < self.target + self.waiting {
            self.pending += 1;
            effects.push(Effect::Create);
        }
        (self, effects)
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Lease),
            Just(Event::GaveUp),
            Just(Event::Created),
            Just(Event::Failed),
            Just(Event::Died),
            Just(Event::BackoffOver)
        ]
    }

    #[test]
    fn back_off_doubles_up_to_half_a_minute() {
        assert_eq!(backoff(1), Duration::from_millis(100));
        assert_eq!(backoff(4), Duration::from_millis(800));
        assert_eq!(backoff(40), Duration::from_secs(30));
    }

    proptest! {
        /// Compares with a model that only counts items handed out: no caller waits while one is ready, no back-off is skipped, and the
        /// pool always approaches its target.
        #[test]
        fn it_never_starves_a_waiter_and_never_makes_too_many(target in 1_usize..6, events in proptest::collection::vec(any_event(), 0..200)) {
            let (mut state, effects) = State::new(target).step(Event::Start);
            let mut making = effects.len();
            prop_assert_eq!(making, target.min(PARALLEL));
            for event in events {
                let possible = match event {
                    Event::Created | Event::Failed => making > 0,
                    Event::GaveUp => state.waiting > 0,
                    Event::Died => state.ready > 0,
                    Event::BackoffOver => state.backing_off,
                    Event::Start | Event::Lease => true,
                };
                if !possible {
                    continue;
                }
                if matches!(event, Event::Created | Event::Failed) {
                    making -= 1;
                }
                let was_backing_off = state.backing_off;
                let (next, effects) = state.step(event);
                making += effects.iter().filter(|effect| **effect == Effect::Create).count();
                prop_assert_eq!(making, next.pending);
                prop_assert!(next.pending <= PARALLEL);
                prop_assert!(next.waiting == 0 || next.ready == 0);
                prop_assert!(next.backing_off || next.pending == PARALLEL || next.ready + next.pending >= next.target + next.waiting);
                if was_backing_off && event != Event::BackoffOver {
                    prop_assert!(!effects.contains(&Effect::Create));
                }
                state = next;
            }
        }
    }
}

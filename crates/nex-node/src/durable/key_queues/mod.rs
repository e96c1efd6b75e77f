//! The order of messages within a key: which one in hand may begin, and what an end lets go on. Pure.
//!
//! A message may begin when nothing of its key is under way, and all before it are dealt with. What was delivered to somebody else, or got
//! lost on its way, is known by the consumer's count of deliveries: each delivery has the next number, so that a gap in them is one in what
//! is known. Until the stream was asked what may be in a gap, nothing behind it begins; what may be in it is *missing* until it comes again
//! or the consumer's floor says that it is done. What is tried again later is missing as well, until it comes.

mod lanes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lanes::Lanes;

/// Most messages that are done while one before them is not. More of other keys wait for it: all of them have to be looked at by whoever
/// takes over.
const MAX_AHEAD: usize = 10_000;
/// Most messages that are missing at once; what is behind them is not looked at until they are fewer.
const MAX_MISSING: usize = 10_000;

/// What messages are told apart by; those that have nothing there are one.
pub(super) type Key = Option<Box<str>>;

/// Names one delivery of a message.
pub(super) type Ticket = u64;

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// The number of this delivery.
    pub(super) delivery: u64,
    /// Whether it was never delivered before.
    pub(super) is_new: bool,
    pub(super) key: Key,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is its turn.
    Begin(Ticket),
    /// The message is dealt with already.
    Done(Ticket),
    /// There is a newer delivery of the message, or it is not this copy's any more.
    Stale(Ticket),
}

/// Messages that may be in a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown {
    gap: u64,
    pub(super) from: u64,
    pub(super) until: u64,
}

/// The messages of one consumer, as one copy knows them.
#[derive(Debug, Default)]
pub(super) struct KeyQueues {
    hand: BTreeMap<u64, Held>,
    lanes: Lanes,
    /// Whose turn has not come, or is not over.
    tickets: HashMap<Ticket, u64>,
    last_ticket: Ticket,
    /// Delivered and not dealt with, as far as is known, and not in hand.
    missing: BTreeMap<u64, Key>,
    /// Dealt with here, above the floor.
    done: BTreeSet<u64>,
    /// All up to this one are dealt with.
    floor: u64,
    /// All up to this one are in hand, missing, or dealt with.
    known: u64,
    /// The number of the last delivery.
    last: Option<u64>,
    gap: Option<Gap>,
    gaps: u64,
    moves: u64,
}

#[derive(Debug)]
struct Held {
    key: Key,
    ticket: Ticket,
    is_running: bool,
    /// Whether it was delivered more than once, and so maybe to others.
    is_repeated: bool,
    /// Another delivery of it, which came while it is under way.
    again: Option<Ticket>,
}

/// What was delivered since deliveries were missed.
#[derive(Debug, Default)]
struct Gap {
    /// The first and the last message that had never been delivered before: between them nothing is unknown.
    first_new: Option<u64>,
    last_new: u64,
}

impl KeyQueues {
    /// A message came.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> (Ticket, Vec<Told>) {
        self.last_ticket += 1;
        self.moves += 1;
        let (ticket, sequence) = (self.last_ticket, arrival.sequence);
        self.follow(&arrival);
        if self.done.contains(&sequence) {
            return (ticket, vec![Told::Done(ticket)]);
        }
        self.forget_missing(sequence);
        self.tickets.insert(ticket, sequence);
        let key = arrival.key.clone();
        let stale = match self.hand.get_mut(&sequence) {
            Some(held) => {
                held.is_repeated |= !arrival.is_new;
                if held.is_running { held.again.replace(ticket) } else { Some(std::mem::replace(&mut held.ticket, ticket)) }
            }
            None => {
                self.lanes.at(&key).hand.insert(sequence);
                self.hand.insert(
                    sequence,
                    Held { key: arrival.key, ticket, is_running: false, is_repeated: !arrival.is_new, again: None },
                );
                None
            }
        };
        let mut told: Vec<_> = stale.into_iter().map(|ticket| self.end(ticket, Told::Stale)).collect();
        told.extend(self.next_of(&key));
        (ticket, told)
    }

    /// A delivery was dealt with; or it was not, and the message comes again.
    pub(super) fn finished(&mut self, ticket: Ticket, is_over: bool) -> Vec<Told> {
        let Some(sequence) = self.tickets.remove(&ticket) else { return Vec::new() };
        self.moves += 1;
        let Some(held) = self.hand.get_mut(&sequence) else { return Vec::new() };
        if held.again == Some(ticket) {
            held.again = None;
            return Vec::new();
        }
        let was_full = self.done.len() >= MAX_AHEAD;
        let (key, again) = (held.key.clone(), held.again.take());
        let mut told = Vec::new();
        self.lanes.at(&key).is_running &= !held.is_running;
        match again {
            Some(again) if !is_over => (held.ticket, held.is_running) = (again, false),
            again => {
                told.extend(again.map(|again| self.end(again, Told::Done)));
                self.put_down(sequence, &key, is_over);
            }
        }
        match was_full {
            true => told.extend(self.next_of_all()),
            false => told.extend(self.next_of(&key)),
        }
        told
    }

    /// Deliveries may have been missed, or be counted anew.
    pub(super) fn interrupted(&mut self) {
        self.last = None;
    }

    /// How far the consumer says all is dealt with. What waits here and is, needs no turn.
    pub(super) fn at_floor(&mut self, floor: u64) -> Vec<Told> {
        self.floor = floor;
        self.done = self.done.split_off(&floor.saturating_add(1));
        let waited: Vec<_> = self.missing.range(..=floor).map(|(sequence, _)| *sequence).collect();
        for sequence in waited {
            self.forget_missing(sequence);
        }
        let gone: Vec<_> =
            self.hand.range(..=floor).filter(|(_, held)| !held.is_running).map(|(sequence, _)| *sequence).collect();
        let mut told = Vec::new();
        for sequence in gone {
            let Some(held) = self.hand.remove(&sequence) else { continue };
            self.lanes.at(&held.key).hand.remove(&sequence);
            self.lanes.tidy(&held.key);
            told.push(self.end(held.ticket, Told::Stale));
        }
        told.extend(self.next_of_all());
        told
    }

    /// Whether the stream has to be asked what is in a gap.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some() && self.missing.len() < MAX_MISSING
    }

    /// Which messages may be in the gap, if so many were delivered.
    pub(super) fn unknown(&self, delivered: u64) -> Option<Unknown> {
        let gap = self.gap.as_ref()?;
        let until = gap.first_new.map_or(delivered, |first| first.saturating_sub(1));
        Some(Unknown { gap: self.gaps, from: self.known.max(self.floor).saturating_add(1), until })
    }

    /// There is such a message.
    pub(super) fn found(&mut self, sequence: u64, key: &Key) {
        if sequence > self.floor && !self.hand.contains_key(&sequence) && !self.done.contains(&sequence) {
            self.lanes.at(key).missing.insert(sequence);
            self.missing.insert(sequence, key.clone());
        }
    }

    /// All of them up to this one were found.
    pub(super) fn read(&mut self, unknown: Unknown, up_to: u64) -> Vec<Told> {
        // Another one since.
        let Some(gap) = self.gap.as_ref().filter(|_| unknown.gap == self.gaps) else { return Vec::new() };
        self.known = self.known.max(up_to);
        if up_to >= unknown.until {
            self.known = self.known.max(gap.last_new);
            self.gap = None;
        }
        self.next_of_all()
    }

    /// Nothing that is missing is under way.
    pub(super) fn found_none(&mut self) -> Vec<Told> {
        let missing: Vec<_> = self.missing.keys().copied().collect();
        for sequence in missing {
            self.forget_missing(sequence);
        }
        self.next_of_all()
    }

    /// A number that is another one when a message has come or gone.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// What is in hand, and whether it was delivered before.
    pub(super) fn hand(&self) -> Vec<(u64, bool)> {
        self.hand.iter().map(|(sequence, held)| (*sequence, held.is_repeated)).collect()
    }

    /// Messages in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.hand.len()
    }

    /// Those that wait for their turn.
    pub(super) fn held_back(&self) -> usize {
        self.hand.values().filter(|held| !held.is_running).count()
    }

    /// Whether something waits for what is not in hand.
    pub(super) fn is_missing_some(&self) -> bool {
        !self.missing.is_empty() || self.gap.is_some()
    }

    /// Notices whether deliveries were missed.
    fn follow(&mut self, arrival: &Arrival) {
        let Arrival { sequence, delivery, is_new, .. } = *arrival;
        let has_followed = self.last.is_some_and(|last| last.checked_add(1) == Some(delivery));
        self.last = Some(delivery);
        if !has_followed || (!is_new && self.gap.is_none() && sequence > self.known) {
            self.gaps += 1;
            self.gap = Some(Gap::default());
            // A consumer that was made again begins anew.
            self.known = if is_new { self.known.min(sequence.saturating_sub(1)) } else { self.known };
        }
        match &mut self.gap {
            Some(gap) if is_new => {
                gap.first_new.get_or_insert(sequence);
                gap.last_new = sequence;
            }
            None if is_new => self.known = sequence,
            _ => {}
        }
    }

    /// It is not in hand any more.
    fn put_down(&mut self, sequence: u64, key: &Key, is_over: bool) {
        self.hand.remove(&sequence);
        self.lanes.at(key).hand.remove(&sequence);
        if !is_over {
            self.found(sequence, key);
            return self.lanes.tidy(key);
        }
        self.lanes.tidy(key);
        self.done.insert(sequence);
        let oldest = self.oldest().unwrap_or(u64::MAX);
        while self.done.len() >= MAX_AHEAD && self.done.first().is_some_and(|first| *first < oldest) {
            self.done.pop_first();
        }
    }

    fn oldest(&self) -> Option<u64> {
        let (hand, missing) = (self.hand.keys().next(), self.missing.keys().next());
        hand.into_iter().chain(missing).min().copied()
    }

    fn forget_missing(&mut self, sequence: u64) {
        if let Some(key) = self.missing.remove(&sequence) {
            self.lanes.at(&key).missing.remove(&sequence);
            self.lanes.tidy(&key);
        }
    }

    fn end(&mut self, ticket: Ticket, told: fn(Ticket) -> Told) -> Told {
        self.tickets.remove(&ticket);
        told(ticket)
    }

    fn next_of_all(&mut self) -> Vec<Told> {
        let keys = self.lanes.keys();
        keys.iter().filter_map(|key| self.next_of(key)).collect()
    }

    /// Begins with the next message of a key, if it may.
    fn next_of(&mut self, key: &Key) -> Option<Told> {
        let sequence = self.lanes.next(key).filter(|sequence| *sequence <= self.known)?;
        if self.done.len() >= MAX_AHEAD && self.oldest() != Some(sequence) {
            return None;
        }
        let held = self.hand.get_mut(&sequence)?;
        held.is_running = true;
        self.lanes.at(key).is_running = true;
        Some(Told::Begin(held.ticket))
    }
}

//! Copies that share a consumer, with all that goes wrong: nothing begins before all of its key that is before it has ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// A consumer as a server keeps it.
#[derive(Default)]
struct Consumer {
    keys: Vec<u8>,
    next: u64,
    delivery: u64,
    /// By sequence, the number of its first delivery.
    pending: BTreeMap<u64, u64>,
    again: VecDeque<u64>,
    /// Of deliveries, and of messages.
    floors: (u64, u64),
}

const MAX_PENDING: usize = 12;

impl Consumer {
    fn deliver(&mut self) -> Option<Arrival> {
        let (sequence, is_new) = match self.again.pop_front() {
            Some(sequence) => (sequence, false),
            None if self.pending.len() < MAX_PENDING && self.next < self.keys.len() as u64 => {
                self.next += 1;
                (self.next, true)
            }
            None => return None,
        };
        self.delivery += 1;
        self.pending.entry(sequence).or_insert(self.delivery);
        Some(Arrival { sequence, delivery: self.delivery, is_new, key: self.key(sequence) })
    }

    fn key(&self, sequence: u64) -> Key {
        let key = self.keys[usize::try_from(sequence).unwrap() - 1];
        (key > 0).then(|| key.to_string().into())
    }

    fn ack(&mut self, sequence: u64) {
        let Some(delivery) = self.pending.remove(&sequence) else { return };
        self.again.retain(|again| *again != sequence);
        match self.pending.range(sequence..).next() {
            _ if self.pending.is_empty() => self.floors = (self.delivery, self.next),
            next if delivery == self.floors.0 + 1 => {
                self.floors = next.map_or((delivery, sequence), |(sequence, delivery)| (delivery - 1, sequence - 1));
            }
            _ => {}
        }
    }

    fn redeliver(&mut self, sequence: u64) {
        if self.pending.contains_key(&sequence) && !self.again.contains(&sequence) {
            self.again.push_back(sequence);
        }
    }

    fn make_again(&mut self) {
        *self = Self { keys: std::mem::take(&mut self.keys), next: self.floors.1, floors: (0, self.floors.1), ..Self::default() };
    }
}

#[derive(Default)]
struct Copy {
    queues: KeyQueues,
    sequences: BTreeMap<Ticket, u64>,
    running: BTreeSet<Ticket>,
}

struct World {
    consumer: Consumer,
    copies: Vec<Copy>,
    pinned: usize,
    ended: BTreeSet<u64>,
}

impl World {
    fn new(keys: Vec<u8>) -> Self {
        let consumer = Consumer { keys, ..Consumer::default() };
        Self { consumer, copies: (0..3).map(|_| Copy::default()).collect(), pinned: 0, ended: BTreeSet::new() }
    }

    fn told(&mut self, copy: usize, told: Vec<Told>) {
        for told in told {
            let copy = &mut self.copies[copy];
            match told {
                Told::Stale(ticket) => assert!(!copy.running.contains(&ticket), "it is under way"),
                Told::Done(ticket) => {
                    let sequence = copy.sequences[&ticket];
                    assert!(self.ended.contains(&sequence), "it is not done");
                    self.consumer.ack(sequence);
                }
                Told::Begin(ticket) => {
                    let sequence = copy.sequences[&ticket];
                    assert!(copy.running.iter().all(|other| copy.sequences[other] != sequence), "twice at once");
                    assert!(copy.running.insert(ticket));
                    let key = self.consumer.key(sequence);
                    let before = (1..sequence).filter(|other| self.consumer.key(*other) == key);
                    for before in before {
                        assert!(self.ended.contains(&before), "{sequence} begins before {before} has ended");
                    }
                }
            }
        }
    }

    fn deliver(&mut self, copy: usize) -> bool {
        let Some(arrival) = self.consumer.deliver() else { return false };
        let sequence = arrival.sequence;
        let (ticket, told) = self.copies[copy].queues.arrive(arrival);
        self.copies[copy].sequences.insert(ticket, sequence);
        self.told(copy, told);
        true
    }

    fn finish(&mut self, copy: usize, nth: usize, is_over: bool) {
        let it = &mut self.copies[copy];
        let Some(ticket) = it.running.iter().nth(nth % it.running.len().max(1)).copied() else { return };
        it.running.remove(&ticket);
        let sequence = it.sequences[&ticket];
        if is_over {
            self.ended.insert(sequence);
            self.consumer.ack(sequence);
        } else {
            self.consumer.redeliver(sequence);
        }
        let told = it.queues.finished(ticket, is_over);
        self.told(copy, told);
    }

    fn look(&mut self, copy: usize) {
        let told = self.copies[copy].queues.at_floor(self.consumer.floors.1);
        self.told(copy, told);
    }

    fn recover(&mut self, copy: usize, at_most: u64) {
        self.look(copy);
        let queues = &mut self.copies[copy].queues;
        if let Some(unknown) = queues.unknown(self.consumer.next) {
            let up_to = unknown.until.min(unknown.from.saturating_add(at_most));
            for sequence in unknown.from..=up_to {
                queues.found(sequence, &self.consumer.key(sequence));
            }
            let told = queues.read(unknown, up_to);
            self.told(copy, told);
        }
    }

    fn step(&mut self, (what, copy, nth): (u8, usize, usize)) {
        match what {
            0..=9 => drop(self.deliver(self.pinned)),
            10 => drop(self.consumer.deliver()),
            11..=15 => self.finish(copy, nth, true),
            16..=18 => self.finish(copy, nth, false),
            19..=22 => self.recover(copy, nth as u64 % 4),
            23 => self.pinned = copy,
            24 => self.copies[copy] = Copy::default(),
            25 => {
                let pending = self.consumer.pending.keys().nth(nth).copied();
                pending.into_iter().for_each(|sequence| self.consumer.redeliver(sequence));
            }
            26 => self.look(copy),
            _ => {
                self.consumer.make_again();
                // Whoever asks for messages is told.
                self.copies.iter_mut().for_each(|copy| copy.queues.interrupted());
            }
        }
    }

    /// All goes well from here on.
    fn end(&mut self) {
        for _round in 0..10 * self.consumer.keys.len() + 10 {
            let running: Vec<_> = self.copies.iter().map(|copy| copy.running.len()).collect();
            for (copy, running) in running.into_iter().enumerate() {
                (0..running).for_each(|_| self.finish(copy, 0, true));
                self.recover(copy, u64::MAX);
            }
            // Of a copy that is there it would be kept; the one that has the pin hears of all.
            let pending: Vec<_> = self.consumer.pending.keys().copied().collect();
            pending.into_iter().for_each(|sequence| self.consumer.redeliver(sequence));
            while self.deliver(self.pinned) {}
        }
        assert_eq!(self.ended.len(), self.consumer.keys.len(), "{:?}", self.copies[self.pinned].queues);
        for copy in &self.copies {
            let KeyQueues { hand, missing, tickets, .. } = &copy.queues;
            assert!(hand.is_empty() && missing.is_empty() && tickets.is_empty(), "{:?}", copy.queues);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    /// Whatever is lost, fails, is taken over, or made again: the order of each key is kept, and all is dealt with.
    #[test]
    fn the_order_of_each_key_is_kept_and_nothing_is_lost(
        keys in proptest::collection::vec(0_u8..5, 0..40),
        steps in proptest::collection::vec((0_u8..28, 0_usize..3, 0_usize..12), 0..300),
    ) {
        let mut world = World::new(keys);
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}

fn arrival(sequence: u64, delivery: u64, key: &str) -> Arrival {
    Arrival { sequence, delivery, is_new: true, key: Some(key.into()) }
}

/// One that was asked for the first time, and found nothing.
fn queues() -> KeyQueues {
    let mut queues = KeyQueues::default();
    let (ticket, told) = queues.arrive(arrival(1, 1, "first"));
    assert!(told.is_empty(), "what was before it is not known");
    let unknown = queues.unknown(1).unwrap();
    assert_eq!(queues.read(unknown, 0), [Told::Begin(ticket)]);
    assert!(queues.finished(ticket, true).is_empty() && !queues.has_gap());
    queues
}

#[test]
fn what_fails_holds_back_its_key_and_no_other() {
    let mut queues = queues();
    let (first, told) = queues.arrive(arrival(2, 2, "a"));
    assert_eq!(told, [Told::Begin(first)]);
    let (second, told) = queues.arrive(arrival(3, 3, "a"));
    assert!(told.is_empty() && queues.held_back() == 1);
    let (other, told) = queues.arrive(arrival(4, 4, "b"));
    assert_eq!(told, [Told::Begin(other)]);
    assert!(queues.finished(first, false).is_empty(), "it is tried again");
    assert!(queues.finished(other, true).is_empty() && queues.is_missing_some());
    let (again, told) = queues.arrive(Arrival { is_new: false, ..arrival(2, 5, "a") });
    assert_eq!(told, [Told::Begin(again)]);
    assert_eq!(queues.finished(again, true), [Told::Begin(second)]);
    let (repeated, told) = queues.arrive(Arrival { is_new: false, ..arrival(2, 6, "a") });
    assert_eq!(told, [Told::Done(repeated)], "it was not heard that it is");
}

#[test]
fn what_was_delivered_to_somebody_else_is_waited_for() {
    let mut queues = queues();
    let (ticket, told) = queues.arrive(arrival(5, 5, "a"));
    assert!(told.is_empty() && queues.has_gap());
    let unknown = queues.unknown(9).unwrap();
    assert_eq!((unknown.from, unknown.until), (2, 4));
    queues.found(3, &Some("a".into()));
    assert!(queues.read(unknown, 4).is_empty() && !queues.has_gap());
    let (other, told) = queues.arrive(arrival(6, 6, "b"));
    assert_eq!(told, [Told::Begin(other)]);
    assert!(queues.at_floor(2).is_empty());
    assert_eq!(queues.at_floor(3), [Told::Begin(ticket)]);
}

#[test]
fn what_is_missing_is_forgotten_where_it_is_known_to_be_nowhere() {
    let mut queues = queues();
    let (ticket, _) = queues.arrive(arrival(5, 5, "a"));
    queues.found(3, &Some("a".into()));
    let unknown = queues.unknown(5).unwrap();
    assert!(queues.read(unknown, 4).is_empty() && queues.is_missing_some());
    let moves = queues.moves();
    assert_eq!(queues.found_none(), [Told::Begin(ticket)]);
    assert!(!queues.is_missing_some() && queues.moves() == moves);
    queues.finished(ticket, true);
    assert_ne!(queues.moves(), moves);
}

#[test]
fn no_more_gets_ahead_than_somebody_else_can_look_at() {
    let mut queues = queues();
    let (slow, _) = queues.arrive(arrival(2, 2, "slow"));
    let mut held = Vec::new();
    for number in 3..=MAX_AHEAD as u64 + 10 {
        let (ticket, told) = queues.arrive(arrival(number, number, "quick"));
        match told.as_slice() {
            [] => held.push(ticket),
            _ => assert!(queues.finished(ticket, true).is_empty()),
        }
    }
    assert!(!held.is_empty() && queues.done.len() <= MAX_AHEAD);
    assert_eq!(queues.finished(slow, true), [Told::Begin(held[0])]);
}

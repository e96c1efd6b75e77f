//! How many messages to ask for: as many as there are free slots, and no more. Pure.

/// What was asked for and has not come.
#[derive(Debug, Default)]
pub(super) struct Credit {
    outstanding: usize,
}

/// What a server says instead of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is there, and has nothing.
    Alive,
    /// A request is over; so many of its messages have not come.
    Over(usize),
    /// Nothing that was asked for will come.
    Lost,
    /// Another copy is given the messages.
    Unpinned,
    /// There is no consumer any more.
    Gone,
}

impl Credit {
    /// How many to ask for now, where that many slots are free of all.
    pub(super) fn wanted(&self, free: usize, of: usize) -> Option<usize> {
        let more = free.saturating_sub(self.outstanding);
        // A request for each freed slot would be a request for each message.
        let is_worth_it = self.outstanding == 0 || more >= (of / 4).max(1);
        (more > 0 && is_worth_it).then_some(more)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn asked(&mut self, count: usize) {
        self.outstanding = self.outstanding.saturating_add(count);
    }

    pub(super) fn came(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Alive => {}
            Told::Over(missing) => self.outstanding = self.outstanding.saturating_sub(missing),
            Told::Lost | Told::Unpinned | Told::Gone => self.outstanding = 0,
        }
    }
}

impl Told {
    /// Reads a status, its text, and how many messages the server says are missing.
    pub(super) fn read(status: u16, text: &str, missing: Option<usize>) -> Self {
        match (status, missing) {
            (100, _) => Self::Alive,
            (409, _) if text.eq_ignore_ascii_case("Consumer Deleted") => Self::Gone,
            (423, _) => Self::Unpinned,
            (404 | 408 | 409, Some(missing)) => Self::Over(missing),
            _ => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_asked_for_in_batches_and_never_twice() {
        let mut credit = Credit::default();
        assert_eq!(credit.wanted(8, 8), Some(8));
        credit.asked(8);
        assert_eq!(credit.wanted(8, 8), None);
        credit.came();
        assert_eq!(credit.wanted(7, 8), None, "that one is busy");
        assert_eq!(credit.wanted(8, 8), None, "one is not worth a request");
        credit.came();
        assert_eq!(credit.wanted(8, 8), Some(2));
        credit.told(Told::Over(6));
        assert_eq!(credit.wanted(1, 8), Some(1), "but where nothing is under way, it is");
        assert_eq!(credit.wanted(0, 8), None);
    }

    #[test]
    fn what_a_server_says_is_told_apart() {
        for (status, text, missing, expected) in [
            (100, "Idle Heartbeat", None, Told::Alive),
            (408, "Request Timeout", Some(3), Told::Over(3)),
            (409, "Consumer Deleted", Some(3), Told::Gone),
            (409, "Leadership Change", None, Told::Lost),
            (409, "Server Shutdown", Some(1), Told::Over(1)),
            (423, "Nats-Pin-Id mismatch", None, Told::Unpinned),
            (423, "Nats-Wrong-Pin-Id", Some(3), Told::Unpinned),
            (503, "", None, Told::Lost),
        ] {
            assert_eq!(Told::read(status, text, missing), expected, "{status} {text}");
        }
    }

    proptest! {
        /// Whatever a server says: what is asked for is never more than what is free.
        #[test]
        fn no_more_is_asked_for_than_is_free(steps in proptest::collection::vec((0_u8..5, 0_usize..20), 0..200), of in 1_usize..16) {
            let (mut credit, mut busy) = (Credit::default(), 0_usize);
            for (step, count) in steps {
                match step {
                    0 if credit.outstanding > 0 => { credit.came(); busy += 1; }
                    1 => busy = busy.saturating_sub(count),
                    2 => credit.told(Told::Over(count)),
                    3 => credit.told(Told::Lost),
                    _ => {}
                }
                let free = of.saturating_sub(busy);
                if let Some(wanted) = credit.wanted(free, of) {
                    prop_assert!(wanted <= free);
                    credit.asked(wanted);
                }
                prop_assert!(credit.outstanding <= of);
                prop_assert!(free == 0 || credit.outstanding > 0, "no slot is idle for ever");
            }
        }
    }
}

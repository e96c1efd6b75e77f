//! Which of the shared agents of a namespace has how many instances. Pure: an agent is made, filled, lost and ended by whoever asks here.
//!
//! ```text
//!            sit: the fullest with room            last one leaves
//!  Usable ◄───────────────────────► Usable  ──────────────────────────► gone, to be ended
//!     │ lost: nobody sits there any more                                  ▲
//!     └────────────► Lost ────────────────────────────────────────────────┘
//! ```

/// The shared agents of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seating<A> {
    most: usize,
    agents: Vec<Table<A>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Table<A> {
    agent: A,
    seats: usize,
    is_lost: bool,
}

impl<A: Clone + PartialEq> Seating<A> {
    /// None yet, each for so many instances at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), agents: Vec::new() }
    }

    /// Takes a seat on an agent that has one; where none has, another agent is needed.
    pub fn sit(&mut self) -> Option<A> {
        let most = self.most;
        let free = self.agents.iter_mut().filter(|table| !table.is_lost && table.seats < most);
        let table = free.max_by_key(|table| table.seats)?;
        table.seats += 1;
        Some(table.agent.clone())
    }

    /// Takes a seat on a certain agent, new or known: one that was made for it, or whose instance an earlier process had put there.
    pub fn sit_on(&mut self, agent: &A) {
        match self.agents.iter_mut().find(|table| table.agent == *agent) {
            Some(table) => table.seats += 1,
            None => self.agents.push(Table { agent: agent.clone(), seats: 1, is_lost: false }),
        }
    }

    /// Nobody sits on that agent any more.
    pub fn lose(&mut self, agent: &A) {
        if let Some(table) = self.agents.iter_mut().find(|table| table.agent == *agent) {
            table.is_lost = true;
        }
    }

    /// Gives a seat back; whether it was the agent's last one, so that it is to be ended.
    pub fn leave(&mut self, agent: &A) -> bool {
        let Some(table) = self.agents.iter_mut().find(|table| table.agent == *agent) else { return false };
        table.seats = table.seats.saturating_sub(1);
        let is_last = table.seats == 0;
        self.agents.retain(|table| table.seats > 0);
        is_last
    }

    /// Whether there are no agents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fullest_agent_is_filled_so_that_others_can_go() {
        let mut seating = Seating::new(2);
        assert_eq!(seating.sit(), None);
        seating.sit_on(&1);
        assert_eq!((seating.sit(), seating.sit()), (Some(1), None));
        seating.sit_on(&2);
        assert!(!seating.leave(&1));
        assert!(matches!(seating.sit(), Some(1 | 2)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Sit,
        Leave(usize),
        Lose(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => Just(Step::Sit), 2 => (0..50_usize).prop_map(Step::Leave), 1 => (0..50_usize).prop_map(Step::Lose)]
    }

    proptest! {
        /// Compares with a model that counts: no agent has more than it may, none that is lost gets another, and each is ended once, by the
        /// last one that leaves it.
        #[test]
        fn every_agent_is_ended_once_when_it_is_empty(most in 1..5_usize, steps in proptest::collection::vec(step(), 0..200)) {
            let mut seating = Seating::new(most);
            let (mut made, mut ended) = (0, Vec::new());
            let (mut seated, mut lost): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Sit => {
                        let agent = seating.sit().unwrap_or_else(|| {
                            made += 1;
                            seating.sit_on(&made);
                            made
                        });
                        prop_assert!(!lost.contains(&agent) && !ended.contains(&agent));
                        seated.push(agent);
                    }
                    Step::Leave(at) if !seated.is_empty() => {
                        let agent = seated.swap_remove(at % seated.len());
                        if seating.leave(&agent) {
                            prop_assert!(!ended.contains(&agent));
                            ended.push(agent);
                        }
                    }
                    Step::Lose(at) if !seated.is_empty() => {
                        let agent = seated[at % seated.len()];
                        seating.lose(&agent);
                        lost.push(agent);
                    }
                    Step::Leave(_) | Step::Lose(_) => {}
                }
                let mut count = BTreeMap::new();
                seated.iter().for_each(|agent| *count.entry(*agent).or_insert(0) += 1);
                prop_assert!(count.values().all(|seats| *seats <= most));
                prop_assert!((1..=made).all(|agent| count.contains_key(&agent) != ended.contains(&agent)));
                prop_assert_eq!(seating.is_empty(), seated.is_empty());
            }
        }
    }
}

//! Whether a service works: its health check, tried again and again, and what is told of it.
//!
//! ```text
//!            pass: told                threshold failures in a row: told
//!  New ─────────────────► Healthy ──────────────────────────────────────► Sick ─┐ as many failures again: told again
//!   └┐ ◄─ failures: why      ▲                    pass: told                │  ◄┘
//!    └── is told             └──────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use nex_engine::native::Service;
use nex_protocol::agent::AgentEvent;
use nex_protocol::deploy::HealthCheck;
use nex_protocol::id::InstanceId;

use crate::event::EventSender;
use crate::host_client::BusHostClient;
use crate::probe;

/// Longest wait for the node to take a report; what is true then is found out anew.
const REPORT: Duration = Duration::from_secs(5);

/// What is known of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It has not passed yet.
    New,
    Healthy,
    Sick,
}

/// What is known, and how many tries have failed in a row.
#[derive(Debug, Clone, Copy)]
struct State {
    health: Health,
    failures: u32,
    threshold: u32,
}

impl State {
    fn new(threshold: u32) -> Self {
        Self { health: Health::New, failures: 0, threshold: threshold.max(1) }
    }

    /// After a try: whether there is something to tell, and what.
    fn step(&mut self, passed: bool) -> Option<bool> {
        self.failures = if passed { 0 } else { self.failures.saturating_add(1) };
        match self.health {
            Health::New | Health::Sick if passed => {
                self.health = Health::Healthy;
                Some(true)
            }
            // Whoever waits for the first pass hears at once why there is none yet.
            Health::New if !passed && (self.failures == 1 || self.failures.is_multiple_of(self.threshold)) => Some(false),
            Health::Healthy | Health::Sick if !passed && self.failures.is_multiple_of(self.threshold) => {
                self.health = Health::Sick;
                Some(false)
            }
            Health::New | Health::Healthy | Health::Sick => None,
        }
    }

    /// The node did not take the news: it is told again after the next try.
    fn untold(&mut self, healthy: bool) {
        if healthy {
            self.health = if self.health == Health::Healthy { Health::New } else { self.health };
        } else {
            self.failures = self.threshold.saturating_sub(1);
        }
    }
}

/// A service that is checked.
pub(crate) struct Checked {
    pub(crate) service: Arc<Service>,
    pub(crate) check: HealthCheck,
    pub(crate) host: BusHostClient,
    pub(crate) events: Arc<EventSender>,
    pub(crate) id: InstanceId,
}

impl Checked {
    /// Checks the service until it is dropped. One try at a time; a try that takes too long has failed, and nothing of it is left.
    pub(crate) async fn run(self) {
        let Self { service, check, host, events, id } = self;
        let mut state = State::new(check.threshold);
        loop {
            let tried = tokio::time::timeout(check.timeout(), probe::attempt(&check.probe, service.beside(), &host)).await;
            let result = tried.unwrap_or_else(|_late| Err(format!("no answer within {} ms", check.timeout_ms)));
            if let Some(healthy) = state.step(result.is_ok()) {
                let times = if state.failures == 1 { String::new() } else { format!(" {} times", state.failures) };
                let message = result.err().map(|why| format!("{} failed{times}: {why}", check.probe));
                let report = AgentEvent::Health { healthy, message: message.unwrap_or_default() };
                if tokio::time::timeout(REPORT, events.deliver(&id, &report)).await.is_err() {
                    state.untold(healthy);
                }
            }
            let pause = if state.health == Health::New { check.first_interval() } else { check.interval() };
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(threshold: u32, tries: &[bool]) -> Vec<Option<bool>> {
        let mut state = State::new(threshold);
        tries.iter().map(|passed| state.step(*passed)).collect()
    }

    #[test]
    fn the_first_pass_and_each_threshold_of_failures_is_told() {
        let (healthy, sick) = (Some(true), Some(false));
        assert_eq!(
            told(3, &[false, false, false, false, true, true]),
            [sick, None, sick, None, healthy, None],
            "why it is not well yet is told, at once"
        );
        assert_eq!(
            told(2, &[true, false, true, false, false]),
            [healthy, None, None, None, sick],
            "only failures in a row count"
        );
        assert_eq!(told(2, &[true, false, false, false, false]), [healthy, None, sick, None, sick], "it is told again");
        assert_eq!(told(1, &[true, false, true]), [healthy, sick, healthy]);
    }

    #[test]
    fn what_was_not_heard_is_told_again_if_it_is_still_so() {
        let mut state = State::new(3);
        assert_eq!(state.step(true), Some(true));
        state.untold(true);
        assert_eq!(state.step(true), Some(true));
        assert_eq!([false; 3].map(|passed| state.step(passed)), [None, None, Some(false)]);
        state.untold(false);
        assert_eq!(state.step(false), Some(false), "still sick");
        state.untold(false);
        assert_eq!(state.step(true), Some(true), "well again");
    }

    proptest! {
        #[test]
        fn nothing_is_sick_with_fewer_failures_in_a_row_than_the_threshold(
            threshold in 1_u32..6, tries in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let (mut state, mut failures, mut was_well) = (State::new(threshold), 0, false);
            for passed in tries {
                failures = if passed { 0 } else { failures + 1 };
                was_well |= passed;
                let news = state.step(passed);
                prop_assert!(news != Some(false) || failures >= threshold || (!was_well && failures == 1));
                prop_assert!(news != Some(true) || passed);
            }
        }
    }
}

//! The life of a workload as a pure state machine. No clock, no I/O.
//!
//! ```text
//!              Started            Ended, may restart          BackoffOver
//!  Starting ───────────► Running ─────────────────► BackingOff ──────────► Starting
//!     │ first start failed  │ Ended for good            │ Stop                 │ Stop
//!     ▼                     ▼                           ▼                      ▼
//!  Stopped ◄──────────── Stopped ◄──────────────────────┘       Stopping ──Drained──► Stopped
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

/// Where a workload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An agent is found and told to start it.
    Starting,
    /// It runs.
    Running,
    /// It failed and will be started again after a pause.
    BackingOff,
    /// It was told to stop.
    Stopping,
    /// It is gone.
    Stopped,
}

impl Phase {
    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing_off",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// All that decides what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Whether it was ever running: from then on its end is announced.
    pub announced: bool,
    /// Whether it is started again after a failure.
    pub restarts_allowed: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// Failures in a row, each soon after its start.
    pub streak: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent runs it.
    Started,
    /// No agent could be made to run it.
    StartFailed,
    /// It ended by itself, or its agent was lost.
    Ended {
        /// Whether that was a failure: a non-zero code, a signal, a lost agent.
        failed: bool,
        /// How long it had been running.
        ran: Duration,
    },
    /// The pause is over.
    BackoffOver,
    /// Somebody entitled wants it gone.
    Stop,
    /// The agent has stopped it.
    Drained,
    /// The node drains: from now on failures are final.
    LameDuck,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Find an agent and have it start the workload.
    Start,
    /// Tell the world that it runs.
    Announce,
    /// Let go of the agent.
    Release,
    /// Send [`Event::BackoffOver`] after this time.
    BackOff(Duration),
    /// Have the agent stop it, then send [`Event::Drained`].
    Drain,
    /// It never ran: tell whoever deployed it.
    Reject,
    /// It is over: tell the world, forget it.
    Retire,
}

/// A workload that ran this long has proven itself: its failures are counted anew.
pub const PROVEN: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl State {
    /// A workload about to be started; the first effect is [`Effect::Start`].
    #[must_use]
    pub fn new(restarts_allowed: bool) -> Self {
        Self { phase: Phase::Starting, announced: false, restarts_allowed, restarts: 0, streak: 0 }
    }

    /// Moves the workload. Events that mean nothing in a phase change nothing.
    #[must_use]
    pub fn step(mut self, event: &Event) -> (Self, Vec<Effect>) {
        let effects = match self.phase {
            Phase::Starting => self.while_starting(event),
            Phase::Running => self.while_running(event),
            Phase::BackingOff => self.while_backing_off(event),
            Phase::Stopping => self.while_stopping(event),
            Phase::Stopped => Vec::new(),
        };
        if *event == Event::LameDuck {
            self.restarts_allowed = false;
        }
        (self, effects)
    }

    fn while_starting(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Started => {
                self.phase = Phase::Running;
                if std::mem::replace(&mut self.announced, true) { Vec::new() } else { vec![Effect::Announce] }
            }
            Event::StartFailed if !self.announced => {
                self.phase = Phase::Stopped;
                vec![Effect::Reject]
            }
            Event::StartFailed => self.fail(),
            Event::Stop => {
                self.phase = Phase::Stopping;
                Vec::new()
            }
            Event::Ended { .. } | Event::BackoffOver | Event::Drained | Event::LameDuck => Vec::new(),
        }
    }

    fn while_running(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Ended { failed, ran } => {
                if *ran >= PROVEN {
                    self.streak = 0;
                }
                let mut effects = vec![Effect::Release];
                if *failed {
                    effects.extend(self.fail());
                } else {
                    self.phase = Phase::Stopped;
                    effects.push(Effect::Retire);
                }
                effects
            }
            Event::Stop => {
                self.phase = Phase::Stopping;
                vec![Effect::Drain]
            }
            Event::Started | Event::StartFailed | Event::BackoffOver | Event::Drained | Event::LameDuck => Vec::new(),
        }
    }

    fn while_backing_off(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::BackoffOver => {
                self.phase = Phase::Starting;
                self.restarts = self.restarts.saturating_add(1);
                vec![Effect::Start]
            }
            Event::Stop | Event::LameDuck => {
                self.phase = Phase::Stopped;
                vec![Effect::Retire]
            }
            Event::Started | Event::StartFailed | Event::Ended { .. } | Event::Drained => Vec::new(),
        }
    }

    fn while_stopping(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            // It was told to stop while it was being started.
            Event::Started => vec![Effect::Drain],
            Event::Drained | Event::StartFailed | Event::Ended { .. } => {
                self.phase = Phase::Stopped;
                let last = if self.announced { Effect::Retire } else { Effect::Reject };
                vec![Effect::Release, last]
            }
            Event::BackoffOver | Event::Stop | Event::LameDuck => Vec::new(),
        }
    }

    fn fail(&mut self) -> Vec<Effect> {
        if !self.restarts_allowed {
            self.phase = Phase::Stopped;
            return vec![Effect::Retire];
        }
        self.phase = Phase::BackingOff;
        self.streak = self.streak.saturating_add(1);
        let pause = FIRST_BACKOFF.saturating_mul(1 << self.streak.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
        vec![Effect::BackOff(pause)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Started),
            Just(Event::StartFailed),
            (any::<bool>(), 0_u64..100).prop_map(|(failed, s)| Event::Ended { failed, ran: Duration::from_secs(s) }),
            Just(Event::BackoffOver),
            Just(Event::Stop),
            Just(Event::Drained),
            Just(Event::LameDuck),
        ]
    }

    #[test]
    fn failures_soon_after_the_start_wait_longer_each_time_and_a_proven_run_resets_that() {
        let mut state = State::new(true).step(&Event::Started).0;
        let fail = |state: State, ran| {
            let (state, effects) = state.step(&Event::Ended { failed: true, ran: Duration::from_secs(ran) });
            let Some(Effect::BackOff(pause)) = effects.last().copied() else { panic!("{effects:?}") };
            (state.step(&Event::BackoffOver).0.step(&Event::Started).0, pause.as_millis())
        };
        let mut pauses = Vec::new();
        for ran in [1, 1, 1, 61, 1] {
            let (next, pause) = fail(state, ran);
            state = next;
            pauses.push(pause);
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 500, 1_000]);
        assert_eq!(state.restarts, 5);
    }

    #[test]
    fn an_exit_of_zero_is_final_even_where_restarts_are_allowed() {
        let state = State::new(true).step(&Event::Started).0;
        let (state, effects) = state.step(&Event::Ended { failed: false, ran: Duration::ZERO });
        assert_eq!((state.phase, effects), (Phase::Stopped, vec![Effect::Release, Effect::Retire]));
    }

    proptest! {
        /// Whatever happens in whatever order: announced once, ended once, and stopped for ever.
        #[test]
        fn every_announced_workload_ends_in_exactly_one_retirement(restarts: bool, events in proptest::collection::vec(any_event(), 0..100)) {
            let mut state = State::new(restarts);
            let (mut announced, mut ended) = (0, 0);
            for event in &events {
                let before = state.clone();
                let (next, effects) = state.step(event);
                announced += effects.iter().filter(|e| **e == Effect::Announce).count();
                ended += effects.iter().filter(|e| matches!(e, Effect::Retire | Effect::Reject)).count();
                if before.phase == Phase::Stopped {
                    prop_assert_eq!(&next.phase, &Phase::Stopped);
                    prop_assert!(effects.is_empty());
                }
                prop_assert_eq!(next.phase == Phase::Stopped, ended == 1);
                prop_assert!(announced <= 1);
                if effects.contains(&Effect::Retire) {
                    prop_assert_eq!(announced, 1);
                }
                if effects.contains(&Effect::Reject) {
                    prop_assert_eq!(announced, 0);
                }
                state = next;
            }
            // And from anywhere, a stop leads to the end.
            let (state, _) = state.step(&Event::Stop);
            let (state, _) = state.step(&Event::Started);
            let (state, _) = state.step(&Event::Drained);
            prop_assert_eq!(state.phase, Phase::Stopped);
        }
    }
}

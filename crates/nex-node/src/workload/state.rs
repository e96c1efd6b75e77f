//! The life of a workload as a pure state machine. No clock, no I/O: what its effects say is what happens, and nothing else does.
//!
//! ```text
//!             Started             Recorded            Ended, AgentLost: may restart        BackoffOver
//!  Starting ───────────► Recording ────────► Running ────────────────────────────► BackingOff ──────────► Starting
//!     │ StartFailed          │ Stop             │ Stop        │ Ended for good           │ Stop, LameDuck
//!     │ (never accepted)     ▼                  ▼             ▼                          ▼
//!     └────────────────►  Stopping ──Undeployed──► Stopped ◄───────────────────────────── ┘
//! ```
//!
//! A workload is *accepted* once it is in the journal and its deployer is told; from then on it ends in exactly one [`Effect::Retire`].
//! One that an earlier process of the node accepted is accepted from the start, and a start that fails does not end it. Where its agent
//! seems to run still, it begins in another way:
//!
//! ```text
//!             Adopted
//!  Adopting ───────────► Running
//!     │ AdoptFailed: as if it had never run
//!     └────────────────► Starting
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

/// Where a workload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It ran when an earlier process of the node was killed, and is taken over.
    Adopting,
    /// An agent is found and told to start it.
    Starting,
    /// It runs and is written into the journal.
    Recording,
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
            Self::Adopting | Self::Starting | Self::Recording => "starting",
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
    /// Whether its deployer was told that it runs: its end is announced.
    pub accepted: bool,
    /// Whether the world was told that it runs, by this process or by the one that started the instance.
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
    /// What an earlier process started still runs, and is ours now.
    Adopted,
    /// It does not, and nothing is left of it.
    AdoptFailed,
    /// An agent runs it.
    Started,
    /// No agent could be made to run it.
    StartFailed,
    /// It is in the journal.
    Recorded,
    /// The journal did not take it.
    RecordFailed,
    /// It ended by itself.
    Ended {
        /// Whether that was a failure: a non-zero code, a signal.
        failed: bool,
        /// How long it had been running.
        ran: Duration,
    },
    /// Its agent is gone, and it with it.
    AgentLost {
        /// How long it had been running.
        ran: Duration,
    },
    /// The pause is over.
    BackoffOver,
    /// Somebody entitled wants it gone.
    Stop,
    /// The agent has stopped it.
    Undeployed,
    /// The node drains: from now on failures are final.
    LameDuck,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Take over what an earlier process started; then [`Event::Adopted`] or [`Event::AdoptFailed`].
    Adopt,
    /// Find an agent and have it start the workload; then [`Event::Started`] or [`Event::StartFailed`].
    Start,
    /// Write it into the journal, with the agent that runs it; then [`Event::Recorded`] or [`Event::RecordFailed`].
    Record,
    /// Tell its deployer and the world that it runs.
    Announce,
    /// Tell the world that its agent was lost.
    ReportAgentLost,
    /// Let go of the agent.
    Release,
    /// Send [`Event::BackoffOver`] after this time.
    BackOff(Duration),
    /// Have the agent stop it; then [`Event::Undeployed`].
    Undeploy,
    /// It was never accepted: forget it, tell whoever deployed it.
    Reject,
    /// It is over: forget it, tell the world.
    Retire,
}

/// A workload that ran this long has proven itself: its failures are counted anew.
pub const PROVEN: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl State {
    /// A workload that is being deployed; the first effect is [`Effect::Start`].
    #[must_use]
    pub fn new(restarts_allowed: bool) -> Self {
        Self { phase: Phase::Starting, accepted: false, announced: false, restarts_allowed, restarts: 0, streak: 0 }
    }

    /// A workload that an earlier process accepted; the first effect is [`Effect::Start`].
    #[must_use]
    pub fn restored(restarts_allowed: bool) -> Self {
        Self { accepted: true, ..Self::new(restarts_allowed) }
    }

    /// A workload that an earlier process accepted and started; the first effect is [`Effect::Adopt`].
    #[must_use]
    pub fn left_running(restarts_allowed: bool) -> Self {
        Self { phase: Phase::Adopting, ..Self::restored(restarts_allowed) }
    }

    /// What it begins with.
    #[must_use]
    pub fn first_effect(&self) -> Effect {
        if self.phase == Phase::Adopting { Effect::Adopt } else { Effect::Start }
    }

    /// Moves the workload. Events that mean nothing in a phase change nothing.
    #[must_use]
    pub fn step(mut self, event: &Event) -> (Self, Vec<Effect>) {
        let effects = match self.phase {
            Phase::Adopting => self.while_adopting(event),
            Phase::Starting => self.while_starting(event),
            Phase::Recording => self.while_recording(event),
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

    fn while_adopting(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Adopted => {
                self.phase = Phase::Running;
                self.announced = true;
                Vec::new()
            }
            Event::AdoptFailed => {
                self.phase = Phase::Starting;
                vec![Effect::Start]
            }
            Event::Stop => {
                self.phase = Phase::Stopping;
                Vec::new()
            }
            Event::Started
            | Event::StartFailed
            | Event::Recorded
            | Event::RecordFailed
            | Event::Ended { .. }
            | Event::AgentLost { .. }
            | Event::BackoffOver
            | Event::Undeployed
            | Event::LameDuck => Vec::new(),
        }
    }

    fn while_starting(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Started => {
                self.phase = Phase::Recording;
                vec![Effect::Record]
            }
            Event::StartFailed if !self.accepted => self.finish(),
            // Accepted by an earlier process and not running yet: it comes back as soon as it can.
            Event::StartFailed if !self.announced => self.back_off(),
            Event::StartFailed => self.fail(),
            Event::Stop => {
                self.phase = Phase::Stopping;
                Vec::new()
            }
            Event::Adopted
            | Event::AdoptFailed
            | Event::Recorded
            | Event::RecordFailed
            | Event::Ended { .. }
            | Event::AgentLost { .. }
            | Event::BackoffOver
            | Event::Undeployed
            | Event::LameDuck => Vec::new(),
        }
    }

    fn while_recording(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            // What was accepted is in the journal already; only its agent is not.
            Event::RecordFailed if !self.accepted => {
                self.phase = Phase::Stopping;
                vec![Effect::Undeploy]
            }
            Event::Recorded | Event::RecordFailed => {
                self.phase = Phase::Running;
                self.accepted = true;
                if std::mem::replace(&mut self.announced, true) { Vec::new() } else { vec![Effect::Announce] }
            }
            Event::Stop => {
                self.phase = Phase::Stopping;
                Vec::new()
            }
            Event::Adopted
            | Event::AdoptFailed
            | Event::Started
            | Event::StartFailed
            | Event::Ended { .. }
            | Event::AgentLost { .. }
            | Event::BackoffOver
            | Event::Undeployed
            | Event::LameDuck => Vec::new(),
        }
    }

    fn while_running(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Ended { failed, ran } => {
                self.prove(*ran);
                let last = if *failed { self.fail() } else { self.finish() };
                // The agent tells of the end until it is let go: first it is on disk.
                [last, vec![Effect::Release]].concat()
            }
            Event::AgentLost { ran } => {
                self.prove(*ran);
                [vec![Effect::ReportAgentLost, Effect::Release], self.fail()].concat()
            }
            Event::Stop => {
                self.phase = Phase::Stopping;
                vec![Effect::Undeploy]
            }
            Event::Adopted
            | Event::AdoptFailed
            | Event::Started
            | Event::StartFailed
            | Event::Recorded
            | Event::RecordFailed
            | Event::BackoffOver
            | Event::Undeployed
            | Event::LameDuck => Vec::new(),
        }
    }

    fn while_backing_off(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::BackoffOver => {
                self.phase = Phase::Starting;
                self.restarts = self.restarts.saturating_add(1);
                vec![Effect::Start]
            }
            Event::Stop | Event::LameDuck => self.finish(),
            Event::Adopted
            | Event::AdoptFailed
            | Event::Started
            | Event::StartFailed
            | Event::Recorded
            | Event::RecordFailed
            | Event::Ended { .. }
            | Event::AgentLost { .. }
            | Event::Undeployed => Vec::new(),
        }
    }

    fn while_stopping(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            // It was told to stop while it was being taken over, started or recorded.
            Event::Adopted | Event::Started | Event::Recorded | Event::RecordFailed => vec![Effect::Undeploy],
            Event::Undeployed | Event::StartFailed | Event::AdoptFailed => self.finish(),
            Event::Ended { .. } | Event::AgentLost { .. } | Event::BackoffOver | Event::Stop | Event::LameDuck => Vec::new(),
        }
    }

    fn prove(&mut self, ran: Duration) {
        if ran >= PROVEN {
            self.streak = 0;
        }
    }

    fn fail(&mut self) -> Vec<Effect> {
        if self.restarts_allowed { self.back_off() } else { self.finish() }
    }

    fn back_off(&mut self) -> Vec<Effect> {
        self.phase = Phase::BackingOff;
        self.streak = self.streak.saturating_add(1);
        let pause = FIRST_BACKOFF.saturating_mul(1 << self.streak.saturating_sub(1).min(16)).min(MAX_BACKOFF);
        vec![Effect::BackOff(pause)]
    }

    fn finish(&mut self) -> Vec<Effect> {
        self.phase = Phase::Stopped;
        vec![if self.accepted { Effect::Retire } else { Effect::Reject }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Adopted),
            Just(Event::AdoptFailed),
            Just(Event::Started),
            Just(Event::StartFailed),
            Just(Event::Recorded),
            Just(Event::RecordFailed),
            (any::<bool>(), 0_u64..100).prop_map(|(failed, s)| Event::Ended { failed, ran: Duration::from_secs(s) }),
            (0_u64..100).prop_map(|s| Event::AgentLost { ran: Duration::from_secs(s) }),
            Just(Event::BackoffOver),
            Just(Event::Stop),
            Just(Event::Undeployed),
            Just(Event::LameDuck),
        ]
    }

    fn running(state: State) -> State {
        state.step(&Event::Started).0.step(&Event::Recorded).0
    }

    #[test]
    fn failures_soon_after_the_start_wait_longer_each_time_and_a_proven_run_resets_that() {
        let mut state = running(State::new(true));
        let fail = |state: State, ran| {
            let (state, effects) = state.step(&Event::Ended { failed: true, ran: Duration::from_secs(ran) });
            let Some(Effect::BackOff(pause)) = effects.first().copied() else { panic!("{effects:?}") };
            (running(state.step(&Event::BackoffOver).0), pause.as_millis())
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
        let (state, effects) = running(State::new(true)).step(&Event::Ended { failed: false, ran: Duration::ZERO });
        assert_eq!((state.phase, effects), (Phase::Stopped, vec![Effect::Retire, Effect::Release]));
    }

    #[test]
    fn what_an_earlier_process_accepted_is_tried_again_until_it_runs() {
        let mut state = State::restored(false);
        for _ in 0..20 {
            let (failed, effects) = state.step(&Event::StartFailed);
            assert!(matches!(effects.as_slice(), [Effect::BackOff(_)]), "{effects:?}");
            state = failed.step(&Event::BackoffOver).0;
        }
        let (state, effects) = state.step(&Event::Started).0.step(&Event::Recorded);
        assert_eq!(effects, [Effect::Announce]);
        let (_, effects) = state.step(&Event::AgentLost { ran: Duration::ZERO });
        assert_eq!(effects, [Effect::ReportAgentLost, Effect::Release, Effect::Retire], "from then on it is as any other");
    }

    #[test]
    fn what_is_taken_over_was_announced_before_and_what_is_not_starts_anew() {
        let left = State::left_running(true);
        assert_eq!(left.first_effect(), Effect::Adopt);
        let (adopted, effects) = left.clone().step(&Event::Adopted);
        assert_eq!((adopted.phase, effects), (Phase::Running, Vec::new()));
        let (failed, effects) = left.clone().step(&Event::AdoptFailed);
        assert_eq!((&failed, effects), (&State::restored(true), vec![Effect::Start]));
        let (stopping, effects) = left.step(&Event::Stop);
        assert_eq!(effects, [], "it is not known yet what there is to stop");
        assert_eq!(stopping.clone().step(&Event::Adopted).1, [Effect::Undeploy]);
        assert_eq!(stopping.step(&Event::AdoptFailed).1, [Effect::Retire]);
    }

    #[test]
    fn what_the_journal_does_not_take_is_not_accepted() {
        let (state, effects) = State::new(true).step(&Event::Started).0.step(&Event::RecordFailed);
        assert_eq!(effects, [Effect::Undeploy]);
        assert_eq!(state.step(&Event::Undeployed).1, [Effect::Reject]);
    }

    proptest! {
        /// Whatever happens in whatever order: announced once, ended once, and stopped for ever.
        #[test]
        fn every_accepted_workload_ends_in_exactly_one_retirement(
            begun in 0_usize..3, restarts: bool, events in proptest::collection::vec(any_event(), 0..100),
        ) {
            let begin: [fn(bool) -> State; 3] = [State::new, State::restored, State::left_running];
            let mut state = begin[begun](restarts);
            let (mut announced, mut ended, mut recorded) = (0, 0, begun > 0);
            for event in &events {
                let before = state.clone();
                let (next, effects) = state.step(event);
                recorded |= before.phase == Phase::Recording && *event == Event::Recorded;
                announced += effects.iter().filter(|e| **e == Effect::Announce).count();
                ended += effects.iter().filter(|e| matches!(e, Effect::Retire | Effect::Reject)).count();
                if before.phase == Phase::Stopped {
                    prop_assert_eq!(&next.phase, &Phase::Stopped);
                    prop_assert!(effects.is_empty());
                }
                prop_assert_eq!(next.phase == Phase::Stopped, ended == 1);
                prop_assert!(announced <= 1);
                prop_assert!(!effects.contains(&Effect::Announce) || recorded, "journalled before anybody is told");
                prop_assert!(!effects.contains(&Effect::Retire) || next.accepted);
                prop_assert!(!effects.contains(&Effect::Reject) || !next.accepted);
                state = next;
            }
            // And from anywhere, a stop leads to the end.
            let (state, _) = state.step(&Event::Stop);
            let (state, _) = state.step(&Event::AdoptFailed);
            let (state, _) = state.step(&Event::Started);
            let (state, _) = state.step(&Event::Recorded);
            let (state, _) = state.step(&Event::Undeployed);
            prop_assert_eq!(state.phase, Phase::Stopped);
        }
    }
}

//! The life of a workload as a pure state machine. No clock, no I/O: what its effects say is what happens, and nothing else does.
//!
//! ```text
//!             Started             Healthy            Recorded          failed, may be started again       BackoffOver
//!  Starting ───────────► Checking ───────► Recording ───────► Running ─────────────────────► BackingOff ──────────► Starting
//!     │ StartFailed         │ Overdue          │ Stop            │ │ Sick                      ▲    │ Stop, LameDuck
//!     │ (never accepted)    ▼                  │                 │ ▼                           │    │
//!     │                 Recovering             │                 │ Recovering ──Undeployed─────┘    │
//!     ▼                     │ Undeployed       ▼                 ▼ Stop; ended for good             ▼
//!     └─────────────────────┴─────────────►  Stopping ──Undeployed──► Stopped ◄─────────────────────┘
//! ```
//!
//! Only what has a health check is checked; all else goes from its start to the journal at once.
//!
//! A workload is *accepted* once it is in the journal and its deployer is told; from then on it ends in exactly one [`Effect::Retire`].
//! One that an earlier process of the node accepted is accepted from the start, and a start that fails does not end it. Where its agent
//! seems to run still, it begins in another way:
//!
//! ```text
//!             Adopted
//!  Adopting ───────────► Running
//!     │ AdoptFailed: as if it had never run; a job has used up one more of its retries
//!     └────────────────► Starting
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use nex_protocol::deploy::Restart;

use super::rules::{PROVEN, Rules};

/// Where a workload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It ran when an earlier process of the node was killed, and is taken over.
    Adopting,
    /// An agent is found and told to start it.
    Starting,
    /// It was started and has not passed its health check yet.
    Checking,
    /// It runs and is written into the journal.
    Recording,
    /// It runs.
    Running,
    /// It is sick, or never was well: it is ended, to be started again if it may.
    Recovering,
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
            Self::Adopting | Self::Starting | Self::Checking | Self::Recording => "starting",
            Self::Running => "running",
            Self::Recovering => "unhealthy",
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
    /// When it is started again.
    pub rules: Rules,
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
    /// Its health check has passed.
    Healthy,
    /// It did not pass its health check in time.
    Overdue,
    /// It passed its health check once and does not any more.
    Sick {
        /// How long it had been running.
        ran: Duration,
    },
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
    /// Wait for its health check; then [`Event::Healthy`] or [`Event::Overdue`].
    AwaitHealth,
    /// Write it into the journal, with the agent that runs it; then [`Event::Recorded`] or [`Event::RecordFailed`].
    Record,
    /// Tell its deployer and the world that it runs.
    Announce,
    /// Tell the world that its agent was lost.
    ReportAgentLost,
    /// Let go of the agent.
    Release,
    /// Have it on disk that it is to be started again; send [`Event::BackoffOver`] after this time.
    BackOff(Duration),
    /// Have the agent stop it; then [`Event::Undeployed`].
    Undeploy,
    /// It was never accepted: forget it, tell whoever deployed it.
    Reject,
    /// It is over: forget it, tell the world.
    Retire,
}

impl Effect {
    /// Its name, for a test that ends the process before it is carried out.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adopt => "workload: adopt",
            Self::Start => "workload: start",
            Self::AwaitHealth => "workload: await health",
            Self::Record => "workload: record",
            Self::Announce => "workload: announce",
            Self::ReportAgentLost => "workload: report its agent lost",
            Self::Release => "workload: release",
            Self::BackOff(_) => "workload: back off",
            Self::Undeploy => "workload: undeploy",
            Self::Reject => "workload: reject",
            Self::Retire => "workload: retire",
        }
    }
}

impl State {
    /// A workload that is being deployed; the first effect is [`Effect::Start`].
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { phase: Phase::Starting, accepted: false, announced: false, rules, restarts: 0, streak: 0 }
    }

    /// A workload that an earlier process accepted; the first effect is [`Effect::Start`].
    #[must_use]
    pub fn restored(rules: Rules) -> Self {
        Self { accepted: true, ..Self::new(rules) }
    }

    /// A workload that an earlier process accepted and started; the first effect is [`Effect::Adopt`].
    #[must_use]
    pub fn left_running(rules: Rules) -> Self {
        Self { phase: Phase::Adopting, ..Self::restored(rules) }
    }

    /// A workload that an earlier process was about to start again; the first effect is [`Effect::BackOff`] for the rest of its pause.
    #[must_use]
    pub fn backing_off(rules: Rules) -> Self {
        Self { phase: Phase::BackingOff, announced: true, ..Self::restored(rules) }
    }

    /// With what an earlier process had counted.
    #[must_use]
    pub fn counting(self, restarts: u32, streak: u32) -> Self {
        Self { restarts, streak, ..self }
    }

    /// What it begins with, where `waited` of a pause is over already.
    #[must_use]
    pub fn first_effect(&self, waited: Duration) -> Effect {
        match self.phase {
            Phase::Adopting => Effect::Adopt,
            Phase::BackingOff => Effect::BackOff(self.rules.pause(self.streak).saturating_sub(waited)),
            Phase::Starting
            | Phase::Checking
            | Phase::Recording
            | Phase::Running
            | Phase::Recovering
            | Phase::Stopping
            | Phase::Stopped => Effect::Start,
        }
    }

    /// Moves the workload. Events that mean nothing in a phase change nothing.
    #[must_use]
    pub fn step(mut self, event: &Event) -> (Self, Vec<Effect>) {
        if let (Phase::Running, Event::Ended { ran, .. } | Event::AgentLost { ran } | Event::Sick { ran }) = (self.phase, event)
            && *ran >= PROVEN
        {
            self.streak = 0;
        }
        let effects = self.take(event);
        if *event == Event::LameDuck {
            self.rules.restart = Restart::Never;
        }
        (self, effects)
    }

    /// What each event means in each phase.
    fn take(&mut self, event: &Event) -> Vec<Effect> {
        use Event::{
            AdoptFailed, Adopted, AgentLost, BackoffOver, Ended, Healthy, LameDuck, Overdue, RecordFailed, Recorded, Sick,
            StartFailed, Started, Stop, Undeployed,
        };
        use Phase::{Adopting, BackingOff, Checking, Recording, Recovering, Running, Starting, Stopped, Stopping};
        match (self.phase, event) {
            (Adopting, Adopted) => self.run(),
            // Whether it has done its work nobody knows: that was one of its tries.
            (Adopting, AdoptFailed) if self.rules.retries.is_some() => self.fail(true),
            (Adopting, AdoptFailed) => self.go(Starting, &[Effect::Start]),

            (Starting, Started) if self.rules.is_gated => self.go(Checking, &[Effect::AwaitHealth]),
            (Starting, Started) | (Checking, Healthy) => self.go(Recording, &[Effect::Record]),
            (Starting, StartFailed) if !self.accepted => self.finish(),
            // Accepted by an earlier process and not running yet: it comes back as soon as it can.
            (Starting, StartFailed) if !self.announced => self.back_off(),
            (Starting, StartFailed) => self.fail(true),

            // What was accepted is in the journal already; only its agent is not.
            (Recording, RecordFailed) if !self.accepted => self.go(Stopping, &[Effect::Undeploy]),
            (Recording, Recorded | RecordFailed) => self.run(),

            (Checking, Ended { .. } | AgentLost { .. }) if !self.accepted => [self.finish(), vec![Effect::Release]].concat(),
            // The agent tells of the end until it is let go: first it is on disk.
            (Checking | Running, Ended { failed, .. }) => [self.fail(*failed), vec![Effect::Release]].concat(),
            (Checking | Running, AgentLost { .. }) => [vec![Effect::ReportAgentLost, Effect::Release], self.fail(true)].concat(),
            (Checking, Overdue) | (Running, Sick { .. }) => self.go(Recovering, &[Effect::Undeploy]),

            (Recovering, Undeployed) if self.accepted => self.fail(true),
            (BackingOff, BackoffOver) => {
                self.restarts = self.restarts.saturating_add(1);
                self.go(Starting, &[Effect::Start])
            }

            (Adopting | Starting | Recording | Recovering, Stop) => self.go(Stopping, &[]),
            (Checking | Running, Stop) => self.go(Stopping, &[Effect::Undeploy]),
            // It was told to stop while it was being taken over, started or recorded.
            (Stopping, Adopted | Started | Recorded | RecordFailed) => vec![Effect::Undeploy],
            (BackingOff, Stop | LameDuck) | (Recovering, Undeployed) | (Stopping, AdoptFailed | StartFailed | Undeployed) => {
                self.finish()
            }

            // The rest means nothing.
            (Starting | Checking | Recording | Running | Recovering | BackingOff, Adopted | AdoptFailed)
            | (Adopting | Checking | Recording | Running | Recovering | BackingOff, Started | StartFailed)
            | (Adopting | Starting | Recording | Running | Recovering | BackingOff | Stopping, Healthy | Overdue)
            | (Adopting | Starting | Checking | Running | Recovering | BackingOff, Recorded | RecordFailed)
            | (Adopting | Starting | Recording | Recovering | BackingOff | Stopping, Ended { .. } | AgentLost { .. })
            | (Adopting | Starting | Checking | Recording | Recovering | BackingOff | Stopping, Sick { .. })
            | (Adopting | Starting | Checking | Recording | Running | BackingOff, Undeployed)
            | (Adopting | Starting | Checking | Recording | Running | Recovering | Stopping, BackoffOver | LameDuck)
            | (Stopping, Stop)
            | (Stopped, _) => Vec::new(),
        }
    }

    fn go(&mut self, phase: Phase, effects: &[Effect]) -> Vec<Effect> {
        self.phase = phase;
        effects.to_vec()
    }

    /// It runs, and the world is told that once: of what is taken over it was.
    fn run(&mut self) -> Vec<Effect> {
        let is_known = self.announced || self.phase == Phase::Adopting;
        (self.accepted, self.announced) = (true, true);
        self.go(Phase::Running, if is_known { &[] } else { &[Effect::Announce] })
    }

    /// It is over, and comes back if it may.
    fn fail(&mut self, failed: bool) -> Vec<Effect> {
        if self.rules.allow_restart(failed, self.restarts) { self.back_off() } else { self.finish() }
    }

    fn back_off(&mut self) -> Vec<Effect> {
        self.streak = self.streak.saturating_add(1);
        self.go(Phase::BackingOff, &[Effect::BackOff(self.rules.pause(self.streak))])
    }

    fn finish(&mut self) -> Vec<Effect> {
        self.go(Phase::Stopped, if self.accepted { &[Effect::Retire] } else { &[Effect::Reject] })
    }
}

#[cfg(test)]
mod tests;

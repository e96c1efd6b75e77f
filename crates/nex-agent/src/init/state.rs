//! The lifecycle of a guest's init, as a pure state machine. No clock, no I/O.
//!
//! ```text
//! Waiting ─ identity ─► Applying ─ applied ─► Running ─ power off ─► Stopping ─ agent ended ─► Stopped
//!    │ metadata ▲          │ failed              │ agent ended          │ time over, twice
//!    ▼          │ failed   ▼                     ▼                      ▼
//!  ReadingMetadata        Stopped              Stopped                Stopped
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use nex_protocol::guest::{FromGuest, GuestIdentity, ToGuest};

/// Longest grace period of an agent.
const MAX_GRACE: Duration = Duration::from_secs(60);
/// Grace period of an interrupt, which names none.
const GRACE: Duration = Duration::from_secs(2);
/// How long killed processes may take to end.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// The state of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has no identity and waits for one. A snapshot is taken here.
    Waiting,
    /// It reads its identity from the metadata service.
    ReadingMetadata,
    /// It applies its identity.
    Applying,
    /// The agent runs.
    Running {
        /// A drive is being mounted.
        attaching: bool,
    },
    /// The agent is being stopped.
    Stopping {
        /// Everything was killed.
        killed: bool,
    },
    /// The machine goes down.
    Stopped,
}

/// An input of the machine.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// The stream to the node was opened or reopened.
    Connected,
    /// The node sent a message.
    Received(ToGuest),
    /// The metadata service answered, or why it did not.
    MetadataRead(Result<Box<GuestIdentity>, String>),
    /// The agent was started, or why it could not be.
    IdentityApplied(Result<(), String>),
    /// A drive was mounted and where, or why it could not be.
    Attached(u8, Result<String, String>),
    /// The agent ended, and how.
    Ended(String),
    /// The machine is to go down: Ctrl-Alt-Del, or a signal to the init.
    Interrupted,
    /// The time of the last [`Effect::Wait`] is over.
    TimeOver,
}

/// An output of the machine: what the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send a message to the node.
    Send(FromGuest),
    /// Read the metadata; [`Event::MetadataRead`] follows.
    ReadMetadata,
    /// Apply the identity and start the agent; [`Event::IdentityApplied`] follows.
    ApplyIdentity(Box<GuestIdentity>),
    /// Mount a drive; [`Event::Attached`] follows.
    Attach(u8),
    /// Ask the agent to end.
    Terminate,
    /// Kill every process but the init.
    KillEverything,
    /// Send [`Event::TimeOver`] after this time.
    Wait(Duration),
    /// Take the machine down.
    Restart,
}

impl State {
    /// Moves the guest on.
    #[must_use]
    pub(super) fn step(self, event: Event) -> (Self, Vec<Effect>) {
        match event {
            Event::Connected if self == Self::Waiting => (self, vec![Effect::Send(ready())]),
            Event::Connected => (self, vec![]),
            Event::Received(message) => self.received(message),
            Event::Interrupted => self.end(GRACE),
            Event::MetadataRead(answer) => match (self, answer) {
                (Self::ReadingMetadata, Ok(identity)) => (Self::Applying, vec![Effect::ApplyIdentity(identity)]),
                (Self::ReadingMetadata, Err(why)) => (Self::Waiting, vec![failed(why)]),
                (state, _) => (state, vec![]),
            },
            Event::IdentityApplied(done) => match (self, done) {
                (Self::Applying, Ok(())) => (Self::Running { attaching: false }, vec![Effect::Send(FromGuest::Identified)]),
                // A half-applied identity is not safe to use.
                (Self::Applying, Err(why)) => (Self::Stopped, vec![failed(why), Effect::Restart]),
                (state, _) => (state, vec![]),
            },
            Event::Attached(slot, done) if matches!(self, Self::Running { .. }) => {
                let message = done.map_or_else(failed, |path| Effect::Send(FromGuest::Attached { slot, path }));
                (Self::Running { attaching: false }, vec![message])
            }
            Event::Ended(message) if self != Self::Stopped => {
                (Self::Stopped, vec![Effect::Send(FromGuest::Ended { message }), Effect::Restart])
            }
            Event::TimeOver if self == (Self::Stopping { killed: false }) => {
                (Self::Stopping { killed: true }, vec![Effect::KillEverything, Effect::Wait(KILL_WAIT)])
            }
            Event::TimeOver if self == (Self::Stopping { killed: true }) => (Self::Stopped, vec![Effect::Restart]),
            Event::Attached(..) | Event::Ended(_) | Event::TimeOver => (self, vec![]),
        }
    }

    fn received(self, message: ToGuest) -> (Self, Vec<Effect>) {
        match (self, message) {
            (Self::Waiting, ToGuest::Identity(identity)) => (Self::Applying, vec![Effect::ApplyIdentity(identity)]),
            (Self::Waiting, ToGuest::Metadata) => (Self::ReadingMetadata, vec![Effect::ReadMetadata]),
            (Self::Running { attaching: false }, ToGuest::Attach { slot }) => {
                (Self::Running { attaching: true }, vec![Effect::Attach(slot)])
            }
            (state, ToGuest::PowerOff { grace_ms }) => state.end(Duration::from_millis(grace_ms)),
            (Self::Stopping { .. } | Self::Stopped, _) => (self, vec![]),
            (Self::Running { attaching: true }, ToGuest::Attach { .. }) => {
                (self, vec![failed("another drive is being attached; next: wait for that answer".to_owned())])
            }
            (_, ToGuest::Attach { .. }) => {
                (self, vec![failed("this guest has no identity yet; next: give it one before attaching drives".to_owned())])
            }
            (_, ToGuest::Identity(_) | ToGuest::Metadata) => {
                (self, vec![failed("this guest has an identity already; next: make another one".to_owned())])
            }
        }
    }

    fn end(self, grace: Duration) -> (Self, Vec<Effect>) {
        match self {
            Self::Running { .. } => {
                (Self::Stopping { killed: false }, vec![Effect::Terminate, Effect::Wait(grace.min(MAX_GRACE))])
            }
            Self::Waiting | Self::ReadingMetadata | Self::Applying => (Self::Stopped, vec![Effect::Restart]),
            Self::Stopping { .. } | Self::Stopped => (self, vec![]),
        }
    }
}

fn ready() -> FromGuest {
    FromGuest::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn failed(message: String) -> Effect {
    Effect::Send(FromGuest::Failed { message })
}

#[cfg(test)]
mod tests {
    use nex_protocol::guest::GuestLimits;
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Box<GuestIdentity> {
        Box::new(GuestIdentity {
            identity: "{}".to_owned(),
            hostname: "a".to_owned(),
            network: None,
            time_unix_nanos: 1,
            entropy: String::new(),
            limits: GuestLimits { uid: 1, processes: 1, open_files: 1, file_bytes: 1, tmp_bytes: 1 },
            root: None,
        })
    }

    fn walk(events: impl IntoIterator<Item = Event>) -> (State, Vec<Effect>) {
        events.into_iter().fold((State::Waiting, Vec::new()), |(state, mut effects), event| {
            let (state, more) = state.step(event);
            effects.extend(more);
            (state, effects)
        })
    }

    #[test]
    fn a_guest_gets_its_identity_and_its_drive_and_powers_off_on_request() {
        let (state, effects) = walk([
            Event::Connected,
            Event::Received(ToGuest::Identity(identity())),
            Event::IdentityApplied(Ok(())),
            Event::Received(ToGuest::Attach { slot: 0 }),
            Event::Attached(0, Ok("/artifact/artifact".to_owned())),
            Event::Received(ToGuest::PowerOff { grace_ms: 10 }),
            Event::Ended("exit code 0".to_owned()),
        ]);
        assert_eq!(state, State::Stopped);
        let expected = [
            Effect::Send(ready()),
            Effect::ApplyIdentity(identity()),
            Effect::Send(FromGuest::Identified),
            Effect::Attach(0),
            Effect::Send(FromGuest::Attached { slot: 0, path: "/artifact/artifact".to_owned() }),
            Effect::Terminate,
            Effect::Wait(Duration::from_millis(10)),
            Effect::Send(FromGuest::Ended { message: "exit code 0".to_owned() }),
            Effect::Restart,
        ];
        assert_eq!(effects, expected);
    }

    #[test]
    fn metadata_may_be_read_again_after_a_failure() {
        let asked = Event::Received(ToGuest::Metadata);
        let (state, effects) = walk([asked.clone(), Event::MetadataRead(Err("no answer".to_owned()))]);
        assert_eq!((state, effects.last()), (State::Waiting, Some(&failed("no answer".to_owned()))));
        let (state, _) =
            walk([asked.clone(), Event::MetadataRead(Err(String::new())), asked, Event::MetadataRead(Ok(identity()))]);
        assert_eq!(state, State::Applying);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Connected),
            Just(Event::Received(ToGuest::Identity(identity()))),
            Just(Event::Received(ToGuest::Metadata)),
            Just(Event::Received(ToGuest::Attach { slot: 1 })),
            Just(Event::Received(ToGuest::PowerOff { grace_ms: u64::MAX })),
            Just(Event::MetadataRead(Ok(identity()))),
            Just(Event::MetadataRead(Err(String::new()))),
            Just(Event::IdentityApplied(Ok(()))),
            Just(Event::IdentityApplied(Err(String::new()))),
            Just(Event::Attached(1, Ok(String::new()))),
            Just(Event::Ended(String::new())),
            Just(Event::Interrupted),
            Just(Event::TimeOver),
        ]
    }

    proptest! {
        #[test]
        fn a_guest_applies_one_identity_and_restarts_once(events in prop::collection::vec(event(), 0..24)) {
            let (state, effects) = walk(events);
            let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();
            prop_assert!(count(|effect| matches!(effect, Effect::ApplyIdentity(_))) <= 1);
            let restarts = count(|effect| *effect == Effect::Restart);
            prop_assert_eq!(restarts, usize::from(state == State::Stopped));
            prop_assert!(restarts == 0 || effects.last() == Some(&Effect::Restart));
            prop_assert!(effects.iter().all(|effect| !matches!(effect, Effect::Wait(time) if *time > MAX_GRACE)));
        }

        #[test]
        fn a_guest_told_to_power_off_has_stopped_after_two_timeouts(events in prop::collection::vec(event(), 0..24)) {
            let (state, _) = walk(events);
            let (state, _) = state.step(Event::Received(ToGuest::PowerOff { grace_ms: 0 }));
            let (state, _) = state.step(Event::TimeOver);
            prop_assert_eq!(state.step(Event::TimeOver).0, State::Stopped);
        }
    }
}

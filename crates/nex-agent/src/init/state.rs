//! What an init does next, as a pure state machine. No clock, no I/O.
//!
//! ```text
//! Waiting ─ welcome ─► Settling ─ settled ─► Running ─ power off ─► Ending ─ agent ended ─► Over
//!    │ metadata ▲          │ failed             │ agent ended         │ its time is over, twice
//!    ▼          │ failed   ▼                    ▼                     ▼
//!  Asking ──────┘         Over                 Over                  Over
//! ```
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use nex_protocol::guest::{FromGuest, ToGuest, Welcome};

/// Longest time that an agent gets to end.
const LONGEST_GRACE: Duration = Duration::from_secs(60);
/// Time to end when nobody said how much.
const GRACE: Duration = Duration::from_secs(2);
/// Time that the kernel has to end what was killed.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Where in its life the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has no identity and waits for one. A snapshot is taken here.
    Waiting,
    /// It asks the metadata service who it is.
    Asking,
    /// It becomes what it was told.
    Settling,
    /// The agent runs.
    Running {
        /// A drive is being mounted.
        attaching: bool,
    },
    /// The agent is to end.
    Ending {
        /// Everything was killed.
        killed: bool,
    },
    /// The machine goes down.
    Over,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// The stream to the node is there, or there again.
    Connected,
    /// The node said something.
    Heard(ToGuest),
    /// The metadata service answered, or why it did not.
    Asked(Result<Box<Welcome>, String>),
    /// The agent was started, or why it could not be.
    Settled(Result<(), String>),
    /// A drive was mounted and where, or why it could not be.
    Attached(u8, Result<String, String>),
    /// The agent ended, and how.
    Ended(String),
    /// The machine is to go down: Ctrl-Alt-Del, or a signal to the init.
    Interrupted,
    /// The time of the last [`Effect::Wait`] is over.
    TimeOver,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell the node.
    Say(FromGuest),
    /// Read the metadata; [`Event::Asked`] follows.
    Ask,
    /// Become this and start the agent; [`Event::Settled`] follows.
    Settle(Box<Welcome>),
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
            Event::Connected if self == Self::Waiting => (self, vec![Effect::Say(ready())]),
            Event::Connected => (self, vec![]),
            Event::Heard(said) => self.heard(said),
            Event::Interrupted => self.end(GRACE),
            Event::Asked(answer) => match (self, answer) {
                (Self::Asking, Ok(welcome)) => (Self::Settling, vec![Effect::Settle(welcome)]),
                (Self::Asking, Err(why)) => (Self::Waiting, vec![failed(why)]),
                (state, _) => (state, vec![]),
            },
            Event::Settled(done) => match (self, done) {
                (Self::Settling, Ok(())) => (Self::Running { attaching: false }, vec![]),
                // Half of an identity is worse than none.
                (Self::Settling, Err(why)) => (Self::Over, vec![failed(why), Effect::Restart]),
                (state, _) => (state, vec![]),
            },
            Event::Attached(slot, done) if matches!(self, Self::Running { .. }) => {
                let said = done.map_or_else(failed, |path| Effect::Say(FromGuest::Attached { slot, path }));
                (Self::Running { attaching: false }, vec![said])
            }
            Event::Ended(message) if self != Self::Over => {
                (Self::Over, vec![Effect::Say(FromGuest::Ended { message }), Effect::Restart])
            }
            Event::TimeOver if self == (Self::Ending { killed: false }) => {
                (Self::Ending { killed: true }, vec![Effect::KillEverything, Effect::Wait(KILL_WAIT)])
            }
            Event::TimeOver if self == (Self::Ending { killed: true }) => (Self::Over, vec![Effect::Restart]),
            Event::Attached(..) | Event::Ended(_) | Event::TimeOver => (self, vec![]),
        }
    }

    fn heard(self, said: ToGuest) -> (Self, Vec<Effect>) {
        match (self, said) {
            (Self::Waiting, ToGuest::Welcome(welcome)) => (Self::Settling, vec![Effect::Settle(welcome)]),
            (Self::Waiting, ToGuest::Metadata) => (Self::Asking, vec![Effect::Ask]),
            (Self::Running { attaching: false }, ToGuest::Attach { slot }) => {
                (Self::Running { attaching: true }, vec![Effect::Attach(slot)])
            }
            (state, ToGuest::PowerOff { grace_ms }) => state.end(Duration::from_millis(grace_ms)),
            (Self::Ending { .. } | Self::Over, _) => (self, vec![]),
            (Self::Running { attaching: true }, ToGuest::Attach { .. }) => {
                (self, vec![failed("another drive is being attached; next: wait for that answer".to_owned())])
            }
            (_, ToGuest::Attach { .. }) => {
                (self, vec![failed("this guest has no identity yet; next: welcome it before attaching drives".to_owned())])
            }
            (_, ToGuest::Welcome(_) | ToGuest::Metadata) => {
                (self, vec![failed("this guest has an identity already; next: make another one".to_owned())])
            }
        }
    }

    fn end(self, grace: Duration) -> (Self, Vec<Effect>) {
        match self {
            Self::Running { .. } => {
                (Self::Ending { killed: false }, vec![Effect::Terminate, Effect::Wait(grace.min(LONGEST_GRACE))])
            }
            Self::Waiting | Self::Asking | Self::Settling => (Self::Over, vec![Effect::Restart]),
            Self::Ending { .. } | Self::Over => (self, vec![]),
        }
    }
}

fn ready() -> FromGuest {
    FromGuest::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn failed(message: String) -> Effect {
    Effect::Say(FromGuest::Failed { message })
}

#[cfg(test)]
mod tests {
    use nex_protocol::guest::GuestLimits;
    use proptest::prelude::*;

    use super::*;

    fn welcome() -> Box<Welcome> {
        Box::new(Welcome {
            identity: "{}".to_owned(),
            hostname: "a".to_owned(),
            network: None,
            time_unix_nanos: 1,
            entropy: String::new(),
            limits: GuestLimits { uid: 1, processes: 1, open_files: 1, file_bytes: 1, tmp_bytes: 1 },
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
    fn a_guest_is_welcomed_gets_its_drive_and_goes_down_when_it_is_told_to() {
        let (state, effects) = walk([
            Event::Connected,
            Event::Heard(ToGuest::Welcome(welcome())),
            Event::Settled(Ok(())),
            Event::Heard(ToGuest::Attach { slot: 0 }),
            Event::Attached(0, Ok("/artifact/artifact".to_owned())),
            Event::Heard(ToGuest::PowerOff { grace_ms: 10 }),
            Event::Ended("exit code 0".to_owned()),
        ]);
        assert_eq!(state, State::Over);
        let expected = [
            Effect::Say(ready()),
            Effect::Settle(welcome()),
            Effect::Attach(0),
            Effect::Say(FromGuest::Attached { slot: 0, path: "/artifact/artifact".to_owned() }),
            Effect::Terminate,
            Effect::Wait(Duration::from_millis(10)),
            Effect::Say(FromGuest::Ended { message: "exit code 0".to_owned() }),
            Effect::Restart,
        ];
        assert_eq!(effects, expected);
    }

    #[test]
    fn metadata_that_cannot_be_read_may_be_asked_for_again() {
        let asked = Event::Heard(ToGuest::Metadata);
        let (state, effects) = walk([asked.clone(), Event::Asked(Err("no answer".to_owned()))]);
        assert_eq!((state, effects.last()), (State::Waiting, Some(&failed("no answer".to_owned()))));
        let (state, _) = walk([asked.clone(), Event::Asked(Err(String::new())), asked, Event::Asked(Ok(welcome()))]);
        assert_eq!(state, State::Settling);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Connected),
            Just(Event::Heard(ToGuest::Welcome(welcome()))),
            Just(Event::Heard(ToGuest::Metadata)),
            Just(Event::Heard(ToGuest::Attach { slot: 1 })),
            Just(Event::Heard(ToGuest::PowerOff { grace_ms: u64::MAX })),
            Just(Event::Asked(Ok(welcome()))),
            Just(Event::Asked(Err(String::new()))),
            Just(Event::Settled(Ok(()))),
            Just(Event::Settled(Err(String::new()))),
            Just(Event::Attached(1, Ok(String::new()))),
            Just(Event::Ended(String::new())),
            Just(Event::Interrupted),
            Just(Event::TimeOver),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_guest_settles_once_and_restarts_once(events in prop::collection::vec(event(), 0..24)) {
            let (state, effects) = walk(events);
            let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();
            prop_assert!(count(|effect| matches!(effect, Effect::Settle(_))) <= 1);
            let restarts = count(|effect| *effect == Effect::Restart);
            prop_assert_eq!(restarts, usize::from(state == State::Over));
            prop_assert!(restarts == 0 || effects.last() == Some(&Effect::Restart));
            prop_assert!(effects.iter().all(|effect| !matches!(effect, Effect::Wait(time) if *time > LONGEST_GRACE)));
        }

        #[test]
        fn a_guest_that_is_told_to_go_is_gone_when_its_time_is_over_twice(events in prop::collection::vec(event(), 0..24)) {
            let (state, _) = walk(events);
            let (state, _) = state.step(Event::Heard(ToGuest::PowerOff { grace_ms: 0 }));
            let (state, _) = state.step(Event::TimeOver);
            prop_assert_eq!(state.step(Event::TimeOver).0, State::Over);
        }
    }
}

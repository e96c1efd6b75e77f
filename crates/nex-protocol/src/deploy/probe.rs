//! What tells whether a service works: something that is tried where it lives.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::subject;

/// Longest probe, bytes, and most words of a command.
const MAX_PROBE: usize = 4_096;
const MAX_WORDS: usize = 64;

/// One try. Shape: `cmd:WORDS`, `tcp:PORT`, `http:PORT/PATH` or `nats:SUBJECT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Probe {
    /// A program in the service's sandbox, with its environment, ends with exit code 0. Words as a shell splits them; no shell runs them.
    Command(Vec<String>),
    /// Something accepts a connection on this port, where the service lives.
    Tcp(u16),
    /// A GET there is answered with a status of 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// Path and query, with its slash.
        path: String,
    },
    /// A request on this subject, on the connection of the workload's host services, has a reply.
    Nats(String),
}

/// A text that is no probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no health check: expected cmd:WORDS, tcp:PORT, http:PORT/PATH or nats:SUBJECT")]
pub struct InvalidProbe(String);

/// The first characters of what somebody wrote.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Probe {
    type Err = InvalidProbe;
    fn from_str(text: &str) -> Result<Self, InvalidProbe> {
        let parsed = || {
            if text.len() > MAX_PROBE {
                return None;
            }
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
            match text.split_once(':')? {
                ("cmd", line) => {
                    let words = shlex::split(line).filter(|words| (1..=MAX_WORDS).contains(&words.len()))?;
                    let is_whole = |word: &String| !word.contains('\0');
                    (words.iter().all(is_whole) && words.first().is_some_and(|program| !program.is_empty()))
                        .then_some(Self::Command(words))
                }
                ("tcp", rest) => Some(Self::Tcp(port(rest)?)),
                ("http", rest) => {
                    let (digits, path) = rest.split_once('/').unwrap_or((rest, ""));
                    let is_path = path.bytes().all(|byte| byte.is_ascii_graphic());
                    is_path.then_some(Self::Http { port: port(digits)?, path: format!("/{path}") })
                }
                ("nats", name) => {
                    let is_subject = subject::is_valid_pattern(name) && !name.contains(['*', '>']);
                    is_subject.then(|| Self::Nats(name.to_owned()))
                }
                _ => None,
            }
        };
        parsed().ok_or_else(|| InvalidProbe(shown(text)))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // No word of it has a NUL, which alone cannot be quoted.
            Self::Command(words) => {
                write!(f, "cmd:{}", shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default())
            }
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Http { port, path } => write!(f, "http:{port}{path}"),
            Self::Nats(subject) => write!(f, "nats:{subject}"),
        }
    }
}

impl TryFrom<String> for Probe {
    type Error = InvalidProbe;
    fn try_from(text: String) -> Result<Self, InvalidProbe> {
        text.parse()
    }
}

impl From<Probe> for String {
    fn from(probe: Probe) -> Self {
        probe.to_string()
    }
}

/// A health check: a probe, and how often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// Time between two tries, ms.
    pub interval_ms: u64,
    /// Longest time of one, ms.
    pub timeout_ms: u64,
    /// Failures in a row that make a service sick.
    pub threshold: u32,
}

impl HealthCheck {
    /// Failures in a row that make a service sick where nobody says how many.
    pub const THRESHOLD: u32 = 3;
    /// The most there can be.
    pub const MAX_THRESHOLD: u32 = 100;
    /// Shortest interval and timeout.
    pub const MIN_TIME: Duration = Duration::from_millis(50);
    /// Longest timeout.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
    /// Longest wait for the first pass.
    pub const MAX_START: Duration = Duration::from_secs(600);
    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(1);
    /// Longest time between two tries until the first pass.
    const EAGER: Duration = Duration::from_millis(500);

    /// A check of this probe; every 10 s, for 1 s at most, where nobody says otherwise.
    #[must_use]
    pub fn new(probe: Probe, interval: Option<Duration>, timeout: Option<Duration>, threshold: u32) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            probe,
            interval_ms: milliseconds(interval.unwrap_or(Self::INTERVAL)),
            timeout_ms: milliseconds(timeout.unwrap_or(Self::TIMEOUT)),
            threshold,
        }
    }

    /// Time between two tries.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// Time between two tries of a service that has not passed yet.
    #[must_use]
    pub fn first_interval(&self) -> Duration {
        self.interval().min(Self::EAGER)
    }

    /// Longest time of one.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Time a service has to pass for the first time: as long as one that passed before has until it is sick.
    #[must_use]
    pub fn start_time(&self) -> Duration {
        self.interval().saturating_mul(self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_probe_is_read_as_it_is_written() {
        for (text, expected) in [
            ("tcp:8080", Probe::Tcp(8080)),
            ("http:80/", Probe::Http { port: 80, path: "/".into() }),
            ("http:80/a/b?c=d", Probe::Http { port: 80, path: "/a/b?c=d".into() }),
            ("nats:svc.ping", Probe::Nats("svc.ping".into())),
            ("cmd:/bin/test -f '/tmp/is there'", Probe::Command(vec!["/bin/test".into(), "-f".into(), "/tmp/is there".into()])),
        ] {
            assert_eq!(text.parse::<Probe>().unwrap(), expected);
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!("http:80".parse::<Probe>().unwrap().to_string(), "http:80/");
        for wrong in [
            "",
            "tcp:",
            "tcp:65536",
            "tcp:-1",
            "http:/x",
            "http:80/a b",
            "http:80/a\r\nHost:x",
            "nats:a.*",
            "nats:",
            "udp:53",
            "cmd:",
            "cmd:''",
            "cmd:'open",
            "8080",
        ] {
            assert!(wrong.parse::<Probe>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_probe_is_the_same_one_again(text in "(cmd|tcp|http|nats):.{0,60}") {
            if let Ok(probe) = text.parse::<Probe>() {
                prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe));
            }
        }
    }
}

//! How a service or a job is kept: restarts, stop, health, retries, deadline (new). What a request says is text and numbers; what they mean
//! is here as well, and a node checks them before any work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::probe::{HealthCheck, InvalidProbe, Probe, shown};

/// How a workload that runs by itself is to be kept; what is absent is the node's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunPolicy {
    /// A [`Restart`]; what `essential` says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// A [`StopSignal`]; SIGINT, and SIGTERM after half of the grace, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Time it has to end by itself when it is stopped, ms; then everything it has started is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_ms: Option<u64>,
    /// What tells whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<RequestedHealth>,
    /// It is a job: it runs to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobPolicy>,
    /// An [`OnSecretChange`]; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_secret_change: Option<String>,
}

/// A health check as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedHealth {
    /// A [`Probe`].
    pub probe: String,
    /// Time between two checks, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Longest time of one, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Failures in a row that make it sick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

/// What makes a workload a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobPolicy {
    /// How often it is tried again after a failure; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Time it has from its deploy on, retries and pauses included, ms; without limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// After which ends a workload is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// All of them, an exit code of 0 included.
    Always,
    /// Those that are failures: another exit code, a signal, a lost agent, a sick service.
    OnFailure,
    /// None.
    Never,
}

impl Restart {
    /// What `essential` of 0.2.7 means.
    #[must_use]
    pub fn of_essential(essential: bool) -> Self {
        if essential { Self::OnFailure } else { Self::Never }
    }

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of a service that runs when one of its secrets has a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSecretChange {
    /// It keeps the old one until it is started again.
    None,
    /// It is stopped and started again.
    Restart,
    /// It gets this signal, when its files have the new value.
    Signal(StopSignal),
}

/// What begins the name of a signal that is sent when a secret changes.
const SIGNAL: &str = "signal:";

impl fmt::Display for OnSecretChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Restart => f.write_str("restart"),
            Self::Signal(signal) => write!(f, "{SIGNAL}{}", signal.as_str()),
        }
    }
}

impl FromStr for OnSecretChange {
    type Err = InvalidPolicy;
    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let unknown = || InvalidPolicy::OnSecretChange(shown(text));
        match text {
            "none" => Ok(Self::None),
            "restart" => Ok(Self::Restart),
            _ => match text.strip_prefix(SIGNAL).ok_or_else(unknown)?.parse::<StopSignal>() {
                // Nobody reads anything after that.
                Ok(signal) if signal.as_str() != "SIGKILL" => Ok(Self::Signal(signal)),
                Ok(_) | Err(_) => Err(unknown()),
            },
        }
    }
}

/// What a policy says that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// No restart policy.
    #[error("'{0}' is no restart policy: expected always, on-failure or never")]
    Restart(String),
    /// Nothing that can be done about a new secret.
    #[error("'{0}' is nothing to do when a secret changes: expected none, restart or signal:NAME, such as signal:HUP")]
    OnSecretChange(String),
    /// No signal that stops anything.
    #[error("'{0}' is no stop signal: expected one of {names}", names = StopSignal::NAMES.join(", "))]
    StopSignal(String),
    /// No probe.
    #[error(transparent)]
    Probe(#[from] InvalidProbe),
    /// A time or number that is out of its bounds.
    #[error("{what} has to be {least} to {most}")]
    OutOfBounds {
        /// Which.
        what: &'static str,
        /// The least it can be.
        least: String,
        /// The most.
        most: String,
    },
    /// A health check whose first pass could be waited for too long.
    #[error("the health check's interval times its threshold has to be at most {} s", HealthCheck::MAX_START.as_secs())]
    SlowHealth,
    /// A job is not a service.
    #[error("a job has no {0}: it runs to its end, with retries and a deadline")]
    OfAJob(&'static str),
}

impl FromStr for Restart {
    type Err = InvalidPolicy;
    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let all = [Self::Always, Self::OnFailure, Self::Never];
        all.into_iter().find(|one| one.as_str() == text).ok_or_else(|| InvalidPolicy::Restart(shown(text)))
    }
}

/// A signal that asks a workload to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StopSignal(usize);

impl StopSignal {
    /// Their names.
    pub const NAMES: [&'static str; 8] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"];

    /// Its name, with `SIG`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self.0).copied().unwrap_or("SIGTERM")
    }
}

impl FromStr for StopSignal {
    type Err = InvalidPolicy;
    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let named =
            |name: &&str| name.eq_ignore_ascii_case(text) || name.get(3..).is_some_and(|it| it.eq_ignore_ascii_case(text));
        Self::NAMES.iter().position(named).map(Self).ok_or_else(|| InvalidPolicy::StopSignal(shown(text)))
    }
}

impl TryFrom<String> for StopSignal {
    type Error = InvalidPolicy;
    fn try_from(text: String) -> Result<Self, InvalidPolicy> {
        text.parse()
    }
}

impl From<StopSignal> for String {
    fn from(signal: StopSignal) -> Self {
        signal.as_str().to_owned()
    }
}

/// Longest grace of a workload.
pub const MAX_STOP_GRACE: Duration = Duration::from_secs(600);
/// Longest deadline of a job.
pub const MAX_JOB_DEADLINE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Most retries of a job.
pub const MAX_RETRIES: u32 = 1_000;

/// How a workload is kept, after every check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedPolicy {
    /// After which ends it is started again; what `essential` says if absent.
    pub restart: Option<Restart>,
    /// What asks it to end.
    pub stop_signal: Option<StopSignal>,
    /// How long it has then.
    pub stop_grace: Option<Duration>,
    /// What tells whether it works.
    pub health: Option<HealthCheck>,
    /// Set for a job.
    pub job: Option<Job>,
    /// What becomes of it when one of its secrets has a new value; nothing if absent.
    pub on_secret_change: Option<OnSecretChange>,
}

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// How often it is tried again.
    pub retries: u32,
    /// Time it has from its deploy on.
    pub deadline: Option<Duration>,
}

impl RunPolicy {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it means.
    ///
    /// # Errors
    /// The first thing in it that cannot be.
    pub fn check(&self) -> Result<CheckedPolicy, InvalidPolicy> {
        let job = self.job.map(JobPolicy::check).transpose()?;
        for (what, is_there) in [
            ("restart policy", self.restart.is_some()),
            ("health check", self.health.is_some()),
            ("reaction to a secret that changes", self.on_secret_change.is_some()),
        ] {
            if job.is_some() && is_there {
                return Err(InvalidPolicy::OfAJob(what));
            }
        }
        Ok(CheckedPolicy {
            restart: self.restart.as_deref().map(str::parse).transpose()?,
            stop_signal: self.stop_signal.as_deref().map(str::parse).transpose()?,
            stop_grace: milliseconds("stop_grace_ms", self.stop_grace_ms, Duration::ZERO, MAX_STOP_GRACE)?,
            health: self.health.as_ref().map(RequestedHealth::check).transpose()?,
            job,
            on_secret_change: self.on_secret_change.as_deref().map(str::parse).transpose()?,
        })
    }
}

impl JobPolicy {
    fn check(self) -> Result<Job, InvalidPolicy> {
        let retries = self.retries.unwrap_or_default();
        if retries > MAX_RETRIES {
            return Err(out_of_bounds("retries", 0, MAX_RETRIES.into()));
        }
        let deadline = milliseconds("deadline_ms", self.deadline_ms, Duration::from_millis(1), MAX_JOB_DEADLINE)?;
        Ok(Job { retries, deadline })
    }
}

impl RequestedHealth {
    fn check(&self) -> Result<HealthCheck, InvalidPolicy> {
        let probe: Probe = self.probe.parse().map_err(InvalidPolicy::Probe)?;
        let threshold = self.threshold.unwrap_or(HealthCheck::THRESHOLD);
        if !(1..=HealthCheck::MAX_THRESHOLD).contains(&threshold) {
            return Err(out_of_bounds("the health check's threshold", 1, HealthCheck::MAX_THRESHOLD.into()));
        }
        let (least, most) = (HealthCheck::MIN_TIME, HealthCheck::MAX_START);
        let interval = milliseconds("the health check's interval_ms", self.interval_ms, least, most)?;
        let timeout = milliseconds("the health check's timeout_ms", self.timeout_ms, least, HealthCheck::MAX_TIMEOUT)?;
        let check = HealthCheck::new(probe, interval, timeout, threshold);
        if check.start_time() > HealthCheck::MAX_START { Err(InvalidPolicy::SlowHealth) } else { Ok(check) }
    }
}

fn milliseconds(
    what: &'static str,
    asked: Option<u64>,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>, InvalidPolicy> {
    let Some(asked) = asked.map(Duration::from_millis) else { return Ok(None) };
    if (least..=most).contains(&asked) { Ok(Some(asked)) } else { Err(out_of_bounds(what, least.as_millis(), most.as_millis())) }
}

fn out_of_bounds(what: &'static str, least: u128, most: u128) -> InvalidPolicy {
    InvalidPolicy::OutOfBounds { what, least: least.to_string(), most: most.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(json: &str) -> RunPolicy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let text =
            r#"{"restart":"always","stop_signal":"SIGQUIT","stop_grace_ms":0,"health":{"probe":"tcp:80","interval_ms":500}}"#;
        let read = policy(text);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let checked = read.check().unwrap();
        assert_eq!((checked.restart, checked.stop_grace), (Some(Restart::Always), Some(Duration::ZERO)));
        assert_eq!(checked.stop_signal.map(StopSignal::as_str), Some("SIGQUIT"));
        assert_eq!(checked.health.unwrap().interval(), Duration::from_millis(500));
        assert_eq!("term".parse::<StopSignal>().unwrap().as_str(), "SIGTERM");
        assert_eq!("signal:hup".parse::<OnSecretChange>().unwrap().to_string(), "signal:SIGHUP");
        assert_eq!(policy("{}").check().unwrap(), CheckedPolicy::default());
        let job = policy(r#"{"job":{"retries":2,"deadline_ms":5000}}"#).check().unwrap().job;
        assert_eq!(job, Some(Job { retries: 2, deadline: Some(Duration::from_secs(5)) }));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, expected) in [
            (r#"{"restart":"sometimes"}"#, "'sometimes' is no restart policy"),
            (r#"{"on_secret_change":"reload"}"#, "'reload' is nothing to do when a secret changes"),
            (r#"{"on_secret_change":"signal:KILL"}"#, "'signal:KILL' is nothing to do when a secret changes"),
            (r#"{"on_secret_change":"signal:"}"#, "expected none, restart or signal:NAME"),
            (r#"{"job":{},"on_secret_change":"restart"}"#, "a job has no reaction to a secret that changes"),
            (r#"{"stop_signal":"SIGSEGV"}"#, "'SIGSEGV' is no stop signal"),
            (r#"{"stop_signal":"9"}"#, "'9' is no stop signal"),
            (r#"{"stop_grace_ms":600001}"#, "stop_grace_ms has to be 0 to 600000"),
            (r#"{"health":{"probe":"tcp:0"}}"#, "tcp:0"),
            (r#"{"health":{"probe":"tcp:1","threshold":0}}"#, "threshold has to be 1"),
            (r#"{"health":{"probe":"tcp:1","interval_ms":1}}"#, "interval_ms has to be"),
            (r#"{"health":{"probe":"tcp:1","interval_ms":300000,"threshold":3}}"#, "at most 600 s"),
            (r#"{"job":{},"restart":"always"}"#, "a job has no restart policy"),
            (r#"{"job":{},"health":{"probe":"tcp:1"}}"#, "a job has no health check"),
            (r#"{"job":{"retries":1001}}"#, "retries has to be 0 to 1000"),
            (r#"{"job":{"deadline_ms":0}}"#, "deadline_ms has to be 1"),
        ] {
            let error = policy(text).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_policy_makes_the_check_panic(restart in ".{0,90}", signal in ".{0,90}", probe in ".{0,90}", number: u64, few: u32) {
            let health = RequestedHealth { probe, interval_ms: Some(number), timeout_ms: Some(number), threshold: Some(few) };
            let job = JobPolicy { retries: Some(few), deadline_ms: Some(number) };
            let one = RunPolicy { restart: Some(restart), stop_signal: Some(signal), stop_grace_ms: Some(number), health: Some(health), ..RunPolicy::default() };
            drop(one.check());
            drop(RunPolicy { job: Some(job), ..RunPolicy::default() }.check());
        }
    }
}

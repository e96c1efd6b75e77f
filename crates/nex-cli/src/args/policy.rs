//! Flags about how a service is kept, or a job run: restarts, stop, health, retries, deadline. A manifest says the same with the same words.

use std::time::Duration;

use clap::Args;
use nex_protocol::deploy::{JobPolicy, OnSecretChange, Probe, RequestedHealth, Restart, RunPolicy, StopSignal, WorkloadType};

use crate::check::{self, Usage};

/// How a service is to be kept, or a job run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Service or job")]
pub(crate) struct PolicyArgs {
    /// When to start it again: always, on-failure or never [default: never; on-failure with --essential]
    #[arg(long, value_name = "WHEN", conflicts_with = "essential")]
    pub(crate) restart: Option<Restart>,
    /// Signal that asks it to end, such as SIGTERM [default: SIGINT, and SIGTERM after half of the grace]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<StopSignal>,
    /// Time it has to end by itself, up to 10m; then everything it started is killed [default: the node's stop_grace_ms]
    #[arg(long, value_name = "TIME", value_parser = check::duration)]
    pub(crate) stop_grace: Option<Duration>,
    /// What tells, in its sandbox, that it works: cmd:WORDS, tcp:PORT, http:PORT/PATH or nats:SUBJECT. It counts as running when that
    /// passes, and is started again when it fails
    #[arg(long, value_name = "CHECK")]
    pub(crate) health: Option<Probe>,
    /// Time between two checks [default: 10s]
    #[arg(long, value_name = "TIME", requires = "health", value_parser = check::duration)]
    pub(crate) health_interval: Option<Duration>,
    /// Longest time of one check [default: 1s]
    #[arg(long, value_name = "TIME", requires = "health", value_parser = check::duration)]
    pub(crate) health_timeout: Option<Duration>,
    /// Failures in a row until it is started again; the first pass has as many intervals [default: 3]
    #[arg(long, value_name = "FAILURES", requires = "health")]
    pub(crate) health_threshold: Option<u32>,
    /// What becomes of it when one of its secrets is set again: none, restart, or signal:NAME, such as signal:HUP, when its files
    /// (KEY=secret-file:NAME) have the new value [default: none]
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_secret_change: Option<OnSecretChange>,
    /// Run it to its end, as a job: it is started again only when it fails, and only --retries times
    #[arg(long, conflicts_with_all = ["essential", "restart", "health", "on_secret_change"])]
    pub(crate) job: bool,
    /// How often a job that fails is tried again [default: 0]
    #[arg(long, value_name = "TIMES", requires = "job")]
    pub(crate) retries: Option<u32>,
    /// Time a job has, retries included; then it is stopped and has failed [default: no limit]
    #[arg(long, value_name = "TIME", requires = "job", value_parser = check::duration)]
    pub(crate) deadline: Option<Duration>,
}

impl PolicyArgs {
    /// What a request for a workload of this type says of it; nothing where nothing was said.
    pub(crate) fn policy(&self, r#type: WorkloadType) -> Result<Option<RunPolicy>, Usage> {
        let policy = self.request()?;
        fits(policy.as_ref(), r#type)?;
        Ok(policy)
    }

    /// The same before the type is known.
    pub(crate) fn request(&self) -> Result<Option<RunPolicy>, Usage> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let policy = RunPolicy {
            restart: self.restart.map(|restart| restart.to_string()),
            stop_signal: self.stop_signal.map(String::from),
            stop_grace_ms: self.stop_grace.map(milliseconds),
            health: self.health.as_ref().map(|probe| RequestedHealth {
                probe: probe.to_string(),
                interval_ms: self.health_interval.map(milliseconds),
                timeout_ms: self.health_timeout.map(milliseconds),
                threshold: self.health_threshold,
            }),
            on_secret_change: self.on_secret_change.map(|what| what.to_string()),
            job: self.job.then(|| JobPolicy { retries: self.retries, deadline_ms: self.deadline.map(milliseconds) }),
        };
        if policy.is_empty() {
            return Ok(None);
        }
        match policy.check() {
            Ok(_) => Ok(Some(policy)),
            Err(error) => Err(Usage(format!("{error}; next: change it"))),
        }
    }
}

/// Functions are called: they have no policy.
pub(crate) fn fits(policy: Option<&RunPolicy>, r#type: WorkloadType) -> Result<(), Usage> {
    if policy.is_none() || !r#type.is_function() {
        return Ok(());
    }
    Err(Usage(format!("a {} function is called, and kept by its node; next: leave restart, stop, health and job out", r#type)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(long)]
        essential: bool,
        #[command(flatten)]
        policy: PolicyArgs,
    }

    fn policy(line: &[&str], r#type: WorkloadType) -> anyhow::Result<Option<RunPolicy>> {
        let line = Line::try_parse_from(["x"].iter().chain(line))?;
        assert!(!line.essential);
        Ok(line.policy.policy(r#type)?)
    }

    #[test]
    fn every_flag_is_in_the_request_and_none_makes_none() {
        assert_eq!(policy(&[], WorkloadType::Native).unwrap(), None);
        assert_eq!(policy(&[], WorkloadType::V8).unwrap(), None);
        let line = [
            "--restart",
            "always",
            "--stop-signal",
            "hup",
            "--stop-grace",
            "20s",
            "--health",
            "http:80/ok",
            "--health-interval",
            "2s",
            "--health-timeout",
            "500ms",
            "--health-threshold",
            "2",
        ];
        let text = serde_json::to_string(&policy(&line, WorkloadType::Native).unwrap()).unwrap();
        let expected = r#"{"restart":"always","stop_signal":"SIGHUP","stop_grace_ms":20000,"health":{"probe":"http:80/ok","interval_ms":2000,"timeout_ms":500,"threshold":2}}"#;
        assert_eq!(text, expected);
        let line = ["--job", "--retries", "2", "--deadline", "90s", "--stop-signal", "TERM"];
        let text = serde_json::to_string(&policy(&line, WorkloadType::Native).unwrap()).unwrap();
        assert_eq!(text, r#"{"stop_signal":"SIGTERM","job":{"retries":2,"deadline_ms":90000}}"#);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_sent() {
        for line in [
            &["--restart", "sometimes"][..],
            &["--restart", "always", "--essential"],
            &["--stop-signal", "SIGSEGV"],
            &["--stop-grace", "11m"],
            &["--health", "ping"],
            &["--health-interval", "1s"],
            &["--retries", "1"],
            &["--job", "--restart", "always"],
            &["--job", "--health", "tcp:80"],
            &["--job", "--retries", "1001"],
            &["--health", "tcp:80", "--health-threshold", "0"],
            &["--health", "tcp:80", "--health-interval", "9m"],
        ] {
            assert!(policy(line, WorkloadType::Native).is_err(), "{line:?}");
        }
        assert!(policy(&["--restart", "always"], WorkloadType::Wasm).is_err());
        assert!(policy(&["--job"], WorkloadType::V8).is_err());
    }
}

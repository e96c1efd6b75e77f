//! Parses and validates values of the command line.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nex_protocol::deploy::{Isolation, RunPolicy, WorkloadType};
use nex_protocol::id::{NodeId, SecretName, is_public_key};
use nex_protocol::seal::file_variable;
use nex_protocol::subject::is_valid_pattern;
use nex_protocol::trigger::{DurableTrigger, HttpRoute, Trigger};

/// A usage error that clap does not detect.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Longest duration accepted.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest file for a flag's value, in bytes.
const MAX_VALUE_FILE: u64 = 64 * 1024;

/// Parses a duration such as `750ms`, `2s`, `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    match parsed {
        Some(time) if !time.is_zero() && time <= MAX_DURATION => Ok(time),
        _ => Err("expected a time of up to a day, such as 750ms, 2s or 1m30s".to_owned()),
    }
}

/// How long a workload has to run before it counts as started, if that is not at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settle(pub(crate) Option<Duration>);

/// Parses a time of up to a minute, or `none`.
pub(crate) fn settle(text: &str) -> Result<Settle, String> {
    match (text, duration(text)) {
        ("none", _) => Ok(Settle(None)),
        (_, Ok(time)) if time <= Duration::from_secs(60) => Ok(Settle(Some(time))),
        _ => Err("expected a time of up to a minute, such as 750ms or 5s, or none".to_owned()),
    }
}

/// Whether a workload can be kept apart as it is asked for: services share no agents, and a machine class is a sandbox of its own.
pub(crate) fn isolation(isolation: Option<Isolation>, r#type: WorkloadType, has_class: bool) -> Result<Option<Isolation>, Usage> {
    if isolation == Some(Isolation::Isolate) && (!r#type.is_function() || has_class) {
        let what = if has_class { "a workload of a machine class" } else { "a service" };
        return Err(Usage(format!(
            "{what} shares no agent with others; next: leave isolation out, or ask for process or microvm"
        )));
    }
    Ok(isolation)
}

/// Validates a subject to subscribe to; wildcards are allowed.
pub(crate) fn subject(text: &str) -> Result<String, String> {
    if is_valid_pattern(text) {
        return Ok(text.to_owned());
    }
    Err("expected tokens joined by dots, without blanks; * stands for one token, > for the rest".to_owned())
}

/// Whether a workload of this type can be given credentials for NATS.
pub(crate) fn takes_credentials(r#type: WorkloadType) -> Result<(), Usage> {
    match r#type.is_function() {
        false => Ok(()),
        true => Err(Usage(format!(
            "a {type} function connects to NATS by its host services; next: give these a connection with --hs_url, and leave nats-creds out"
        ))),
    }
}

/// Whether a workload of this type can have these secrets in these places, and be told as it says where one of them changes.
pub(crate) fn secrets_fit(
    r#type: WorkloadType,
    policy: Option<&RunPolicy>,
    secrets: &BTreeMap<String, SecretName>,
) -> Result<(), Usage> {
    let in_file = secrets.iter().find(|(member, _)| file_variable(member).is_some());
    if let Some((member, name)) = in_file.filter(|_| r#type.is_function()) {
        let variable = file_variable(member).unwrap_or_default();
        return Err(Usage(format!("a {type} function has no files; next: write {variable}=secret:{name}")));
    }
    let reaction = policy.and_then(|policy| policy.on_secret_change.as_deref()).filter(|what| what.starts_with("signal:"));
    match secrets.iter().next() {
        Some((variable, name)) if reaction.is_some() && in_file.is_none() => Err(Usage(format!(
            "a signal tells a service that its files have new values, and its secrets are variables; next: write \
             {variable}=secret-file:{name}, and have it read that file, or --on-secret-change restart"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Parses a tag of a node.
pub(crate) fn tag(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
    pair.map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE; `nex node info` shows a node's tags".to_owned())
}

/// Parses a key of an issuer: a public one, or `me`.
pub(crate) fn issuer(text: &str) -> Result<String, String> {
    match text == "me" || is_public_key(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a public key (56 characters, A…, U…, O…), or me; `nex whoami` prints yours".to_owned()),
    }
}

/// Subjects among triggers, requests, and those that keep their messages.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Triggers {
    pub(crate) subjects: Vec<String>,
    pub(crate) http: Vec<HttpRoute>,
    pub(crate) durable: Vec<DurableTrigger>,
}

impl Triggers {
    /// Whether a workload of this type can have them: a service subscribes its subjects itself, and a job is not called.
    pub(crate) fn fit(&self, r#type: WorkloadType, is_job: bool) -> Result<(), Usage> {
        if r#type.is_function() || *self == Self::default() {
            return Ok(());
        }
        if is_job {
            return Err(Usage(
                "a job is run to its end, and not called; next: leave its triggers out, or leave job out".to_owned(),
            ));
        }
        if self.subjects.is_empty() && self.http.is_empty() {
            return Ok(());
        }
        Err(Usage(format!(
            "a {type} workload is not called by subjects or HTTP, it subscribes its subjects itself; next: leave these triggers out, or have \
             streams, buckets or schedules call it (stream:, kv:, object:, every:, cron:, at:)"
        )))
    }
}

impl Extend<Trigger> for Triggers {
    fn extend<T: IntoIterator<Item = Trigger>>(&mut self, triggers: T) {
        for trigger in triggers {
            match trigger {
                Trigger::Subject(subject) => self.subjects.push(subject),
                Trigger::Http(route) => self.http.push(route),
                Trigger::Durable(trigger) => self.durable.push(trigger),
            }
        }
    }
}

/// Parses a trigger; one without a kind is a subject.
pub(crate) fn trigger_or_subject(text: &str) -> Result<Trigger, String> {
    match text.contains(':') {
        true => text.parse().map_err(|error| format!("{error}")),
        false => subject(text).map(Trigger::Subject),
    }
}

/// Parses a number of concurrent calls.
pub(crate) fn concurrency(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=100_000).contains(count)).ok_or_else(|| "expected a number from 1 to 100000".to_owned())
}

/// Parses a node to deploy to. A list without a node in it trusts nobody, which nobody means; to any node it may not open the way.
pub(crate) fn trusted_node(text: &str) -> Result<NodeId, String> {
    if text.trim().is_empty() {
        return Err("no node is named; next: name one, or unset NEX_TRUSTED_NODES to deploy to any".to_owned());
    }
    let next = "take it from `nex node ls`: a name is only what a node says of itself";
    text.trim().parse().map_err(|error| format!("{error}; next: {next}"))
}

/// Returns the value, or after `@` the trimmed content of the file.
pub(crate) fn text_or_file(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some(path) => Ok(small_file(Path::new(path))?.trim().to_owned()),
    }
}

/// Reads a small text file.
pub(crate) fn small_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_VALUE_FILE + 1).read_to_string(&mut text));
    let count = read.with_context(|| format!("cannot read {}; next: check the path and its permissions", path.display()))?;
    if count as u64 > MAX_VALUE_FILE {
        return Err(Usage(format!("{} is larger than 64 KiB; next: check that it is the right file", path.display())).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_are_bounded() {
        assert_eq!(duration("750ms"), Ok(Duration::from_millis(750)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0s", "-1s", "soon", "400h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

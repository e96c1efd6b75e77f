//! `nex.toml` as it is written, by people and by `nex export`: every field there is, none of them looked at yet but for policies and limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use nex_protocol::deploy::RequestedLimits;
use serde::{Deserialize, Serialize};

use crate::args::{PolicyArgs, milliseconds};
use crate::check::{self, Usage};

/// The file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawManifest {
    pub(super) project: Option<String>,
    #[serde(default)]
    pub(super) workloads: BTreeMap<String, RawWorkload>,
}

/// A workload in it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorkload {
    pub(super) file: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) r#type: Option<String>,
    pub(super) copies: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) spread: bool,
    pub(super) settle: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) argv: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) env_files: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) essential: bool,
    pub(super) restart: Option<String>,
    pub(super) stop_signal: Option<String>,
    pub(super) stop_grace: Option<String>,
    pub(super) health: Option<String>,
    pub(super) health_interval: Option<String>,
    pub(super) health_timeout: Option<String>,
    pub(super) health_threshold: Option<u32>,
    pub(super) on_secret_change: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) job: bool,
    pub(super) retries: Option<u32>,
    pub(super) deadline: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) triggers: Vec<String>,
    pub(super) memory_mib: Option<u64>,
    pub(super) call_timeout: Option<String>,
    pub(super) concurrency: Option<usize>,
    pub(super) cpu_time: Option<String>,
    pub(super) payload_bytes: Option<u64>,
    pub(super) reply_bytes: Option<u64>,
    pub(super) host_calls: Option<u64>,
    pub(super) log_bytes: Option<u64>,
    pub(super) machine: Option<String>,
    pub(super) isolation: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) environment: BTreeMap<String, RawValue>,
    pub(super) nats_creds: Option<RawFrom>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: BTreeMap<String, String>,
}

/// A variable's value: a text, the content of a file, a variable of whoever applies the file, a secret of the namespace, or the path of a
/// file with one.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum RawValue {
    Text(String),
    From(RawFrom),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawFrom {
    File(PathBuf),
    Variable(String),
    Secret(String),
    SecretFile(String),
}

/// How a service is to be kept, as the flags of `devrun` say it.
pub(super) fn policy(raw: &RawWorkload) -> Result<PolicyArgs, Usage> {
    fn read<T: FromStr<Err: std::fmt::Display>>(field: &str, text: Option<&String>) -> Result<Option<T>, Usage> {
        text.map(|text| text.parse()).transpose().map_err(|error| Usage(format!("{field}: {error}")))
    }
    let time = |field: &str, text: Option<&String>| {
        text.map(|text| check::duration(text)).transpose().map_err(|why| Usage(format!("{field}: {why}")))
    };
    if raw.essential && raw.restart.is_some() {
        return Err(Usage("essential and restart say the same; next: leave essential out".to_owned()));
    }
    if !raw.job && (raw.retries.is_some() || raw.deadline.is_some()) {
        return Err(Usage("retries and deadline are those of a job; next: set job = true".to_owned()));
    }
    if raw.job && raw.essential {
        return Err(Usage("a job has retries instead of essential; next: leave essential out".to_owned()));
    }
    Ok(PolicyArgs {
        restart: read("restart", raw.restart.as_ref())?,
        stop_signal: read("stop_signal", raw.stop_signal.as_ref())?,
        stop_grace: time("stop_grace", raw.stop_grace.as_ref())?,
        health: read("health", raw.health.as_ref())?,
        health_interval: time("health_interval", raw.health_interval.as_ref())?,
        health_timeout: time("health_timeout", raw.health_timeout.as_ref())?,
        health_threshold: raw.health_threshold,
        on_secret_change: read("on_secret_change", raw.on_secret_change.as_ref())?,
        job: raw.job,
        retries: raw.retries,
        deadline: time("deadline", raw.deadline.as_ref())?,
    })
}

/// What calls of a function may use.
pub(super) fn limits(raw: &RawWorkload) -> Result<RequestedLimits, String> {
    let time = |name: &str, text: &Option<String>| {
        let time = text.as_deref().map(check::duration).transpose();
        time.map(|time| time.map(milliseconds)).map_err(|why| format!("{name}: {why}"))
    };
    let number = |name: &str, number: Option<u64>| match number {
        Some(0) => Err(format!("{name}: expected at least 1")),
        number => Ok(number),
    };
    let concurrency = raw.concurrency.map(|count| check::concurrency(&count.to_string())).transpose();
    Ok(RequestedLimits {
        memory_mib: number("memory_mib", raw.memory_mib)?,
        call_timeout_ms: time("call_timeout", &raw.call_timeout)?,
        concurrency: concurrency.map_err(|why| format!("concurrency: {why}"))?,
        cpu_ms: time("cpu_time", &raw.cpu_time)?,
        payload_bytes: number("payload_bytes", raw.payload_bytes)?,
        reply_bytes: number("reply_bytes", raw.reply_bytes)?,
        host_calls: number("host_calls", raw.host_calls)?,
        log_bytes: number("log_bytes", raw.log_bytes)?,
    })
}

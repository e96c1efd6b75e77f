//! Bodies of the questions about nodes: AUCTION, PING, WPING, INFO, LAMEDUCK. (Deploy and stop: [`crate::deploy`].)
//!
//! Fields that 0.2.7 does not know are optional and ignored by its clients.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deploy::WorkloadType;
use crate::log::Level;

/// Tags of a node or asked of one.
pub type Tags = BTreeMap<String, String>;

/// Who would take a workload like this? Absent members do not filter; an empty body asks everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuctionRequest {
    /// Processor, `amd64` or `arm64`, compared without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Operating system, compared without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Whether workloads must run in a VM (`true`) or must not (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandboxed: Option<bool>,
    /// Tags the node must have, values compared without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Types the node must take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_types: Option<Vec<String>>,
    /// Asks nodes that decline to answer too and say why (new; nodes of 0.2.7 stay silent).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// A bid, and the answer to PING: they have one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSummary {
    /// Public key of the node.
    pub node_id: String,
    /// Name of the group of nodes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nexus: String,
    /// Version of the node's software.
    pub version: String,
    /// Time since the node started, as [`uptime`] writes it.
    pub uptime: String,
    /// Key to seal environments to.
    pub target_xkey: String,
    /// The node's signature that this key is its own, see [`crate::seal::is_xkey_of`] (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey_signature: String,
    /// Its tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// Deployed workloads of all namespaces.
    pub running_machines: usize,
    /// Agents that wait for a workload (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_agents: Option<usize>,
    /// Why this node declines; never set in a bid (new, only where `explain` was asked).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<String>,
}

/// One workload in the answer to WPING.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadSummary {
    /// Workload id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// Time since it was deployed (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uptime: String,
    /// `starting`, `running`, `backing_off` or `stopping` (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// How often it was restarted (new).
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// Trigger subjects of a function (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// Public key of whoever may stop it (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// How it last ended, where it was started again since or will be (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// By what its deployer tells this version of it from others (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its last lines, where they were asked for (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<TailLine>,
}

/// What a WPING asks for besides what runs; its body is empty in 0.2.7 (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadPingRequest {
    /// Also what has ended lately.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// So many of the last lines of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}

/// How a workload ended (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastExit {
    /// Its exit code; -1 where it was lost or never ran.
    pub code: i32,
    /// Why, for people.
    pub reason: String,
    /// When, seconds since 1970.
    pub at: i64,
}

/// A workload that has ended (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndedWorkload {
    /// Workload id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// How often it was restarted.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// How it ended.
    #[serde(flatten)]
    pub exit: LastExit,
    /// The last line of its errors, or of what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
    /// Its last lines, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<TailLine>,
}

/// A line that a workload has written (new).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailLine {
    /// When, seconds since 1970.
    pub at: i64,
    /// How serious it is.
    pub level: Level,
    /// The line.
    pub text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Answer to WPING of a node that runs at least one match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadPingResponse {
    /// Public key of the node.
    pub node_id: String,
    /// Key to seal environments to.
    pub target_xkey: String,
    /// Version of the node's software.
    pub version: String,
    /// Its tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// Time since the node started.
    pub uptime: String,
    /// The matches.
    pub running_machines: Vec<WorkloadSummary>,
    /// Matches that have ended, where they were asked for (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedWorkload>,
}

/// Memory of the host, kB, from `/proc/meminfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// MemTotal
    pub total: u64,
    /// MemFree
    pub free: u64,
    /// MemAvailable
    pub available: u64,
}

/// What a machine of an INFO answer runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineWorkload {
    /// Its name.
    pub name: String,
    /// What the deployer said of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Functions: time spent in calls; services: uptime.
    pub runtime: String,
    /// Its type.
    pub r#type: String,
    /// SHA-256 of the artifact, hex.
    pub hash: String,
}

/// One workload in an INFO answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Workload id.
    pub id: String,
    /// Whether it is running now.
    pub healthy: bool,
    /// Time since it was deployed.
    pub uptime: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// What it runs.
    pub workload: MachineWorkload,
}

/// Answer to INFO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InfoResponse {
    /// Version of the node's software.
    pub version: String,
    /// Time since the node started.
    pub uptime: String,
    /// Key to seal environments to.
    pub public_xkey: String,
    /// The node's signature that this key is its own (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey_signature: String,
    /// Its tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// The host's memory; absent where the host does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Workloads of the namespace asked about.
    #[serde(deserialize_with = "null_is_empty")]
    pub machines: Vec<Machine>,
    /// Types this node takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_workload_types: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Machine>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Answer to LAMEDUCK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LameDuckResponse {
    /// Public key of the node.
    pub node_id: String,
    /// Whether it drains now.
    pub success: bool,
}

impl AuctionRequest {
    /// Why a node with these properties does not fit; empty when it does.
    #[must_use]
    pub fn mismatches(&self, tags: &Tags, sandboxed: bool, types: &[WorkloadType]) -> Vec<String> {
        let mut reasons = Vec::new();
        let tag = |key: &str| tags.get(key).map_or("", String::as_str);
        for (what, wanted, own) in [("architecture", &self.arch, tag("nex.arch")), ("operating system", &self.os, tag("nex.os"))]
        {
            if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty() && !wanted.eq_ignore_ascii_case(own)) {
                reasons.push(format!("its {what} is {own}, not {wanted}"));
            }
        }
        if let Some(wanted) = self.sandboxed.filter(|wanted| *wanted != sandboxed) {
            reasons.push(if wanted { "it has no microVM sandbox".into() } else { "its workloads run in microVMs".into() });
        }
        for (key, wanted) in self.tags.iter().flatten() {
            match tags.get(key) {
                Some(own) if own.eq_ignore_ascii_case(wanted) => {}
                Some(own) => reasons.push(format!("its tag {key} is '{own}', not '{wanted}'")),
                None => reasons.push(format!("it has no tag {key}")),
            }
        }
        for wanted in self.workload_types.iter().flatten() {
            if !types.iter().any(|own| own.matches(wanted)) {
                let own = types.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ");
                reasons.push(format!("it does not take type {wanted}, only {own}"));
            }
        }
        reasons
    }
}

/// A time span as nats-server writes uptimes: `12s`, `3m12s`, `1h3m12s`, `2d1h3m12s`, `1y2d1h3m12s`.
#[must_use]
pub fn uptime(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let (s, m, h) = (seconds % 60, minutes % 60, hours % 24);
    match () {
        () if days >= 365 => format!("{}y{}d{h}h{m}m{s}s", days / 365, days % 365),
        () if days > 0 => format!("{days}d{h}h{m}m{s}s"),
        () if hours > 0 => format!("{h}h{m}m{s}s"),
        () if minutes > 0 => format!("{m}m{s}s"),
        () => format!("{s}s"),
    }
}

/// Time spent in a function's calls: `<n>ns` below 1 µs, `<n>ms` below 1 s, else as [`uptime`].
#[must_use]
pub fn runtime(span: Duration) -> String {
    match span {
        span if span < Duration::from_micros(1) => format!("{}ns", span.as_nanos()),
        span if span < Duration::from_secs(1) => format!("{}ms", span.as_millis()),
        span => uptime(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_read_like_those_of_nats_server() {
        for (seconds, expected) in
            [(12, "12s"), (192, "3m12s"), (3_792, "1h3m12s"), (176_592, "2d1h3m12s"), (31_712_592, "1y2d1h3m12s")]
        {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_declining_node_says_every_reason() {
        let tags =
            Tags::from([("nex.os".into(), "linux".into()), ("nex.arch".into(), "amd64".into()), ("zone".into(), "A".into())]);
        let fits: AuctionRequest =
            serde_json::from_str(r#"{"arch":"AMD64","os":"linux","tags":{"zone":"a"},"workload_types":["native"]}"#).unwrap();
        assert!(fits.mismatches(&tags, false, &[WorkloadType::Native]).is_empty());
        assert!(AuctionRequest::default().mismatches(&Tags::new(), true, &[]).is_empty());
        let not: AuctionRequest =
            serde_json::from_str(r#"{"arch":"arm64","sandboxed":true,"tags":{"zone":"b","gpu":"1"},"workload_types":["wasm"]}"#)
                .unwrap();
        assert_eq!(not.mismatches(&tags, false, &[WorkloadType::Native]).len(), 5);
    }
}

//! AUCTION, PING, INFO and LAMEDUCK: which nodes there are, and who would take a workload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::HistorySummary;
use crate::deploy::WorkloadType;

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
    /// How far the workload has to be kept apart from others, a [`crate::deploy::Isolation`] (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Namespace it is for: a node may keep some of them further apart, and their quotas may be used up (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Public key of who will sign it, for its quota (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Memory that it asks for, MiB (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Class of machine that it asks for (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_class: Option<String>,
    /// Name of a workload of this issuer that it would replace: on a node that has one, that lends its room in the quotas (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Subjects that it is to be called on: a node where another namespace has one of them says so (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
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
    /// Time since the node started, as [`super::uptime`] writes it.
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
    /// The first of the triggers asked for that another namespace has here (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_trigger: Option<String>,
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

/// How busy a host is (new).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostUse {
    /// When that was, by the node's own clock, ms.
    pub at_ms: u64,
    /// Time that its processors were busy since it was booted, all added up, ms.
    pub busy_ms: u64,
    /// Its processors.
    pub processors: u64,
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

/// A quota and what is used of it (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaSummary {
    /// Whose it is, for people: `this node`, `namespace N`, `issuer A…`.
    pub of: String,
    /// Of what: `workloads`, `memory`, `cpu`, `artifacts`, `logs`, `deploys`.
    pub what: String,
    /// Unit of the numbers; empty where they are counts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// What is used; absent for rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What may be used.
    pub most: u64,
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
    /// How busy the host is; absent where it does not tell (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostUse>,
    /// Workloads of the namespace asked about.
    #[serde(deserialize_with = "null_is_empty")]
    pub machines: Vec<Machine>,
    /// Further ones, for which there was no room in the message; a list of workloads has them (new).
    #[serde(skip_serializing_if = "is_none")]
    pub more_machines: usize,
    /// Types this node takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_workload_types: Vec<String>,
    /// Quotas of the node, of the namespace asked about, and of the issuers of its workloads (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaSummary>,
    /// What it keeps of log lines and events (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistorySummary>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Machine>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a LAMEDUCK says besides; its body is empty in 0.2.7 (new).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LameDuckRequest {
    /// Time until what still runs is stopped and the node ends, ms; without it the node ends when nothing is left to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
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
                reasons.push(format!("it does not take type {wanted}, only {own} (workload_types of its configuration)"));
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

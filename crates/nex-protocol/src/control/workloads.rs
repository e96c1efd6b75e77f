//! WPING: what runs, what has ended, and the last lines of both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cause::ExitCause;
use super::node::Tags;
use super::triggers::TriggerSummary;
use crate::deploy::Isolation;
use crate::log::Level;

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
    /// `starting`, `running`, `unhealthy`, `backing_off` or `stopping` (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// How often it was restarted (new).
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// Trigger subjects of a function, and its other triggers as they were written (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// Where those are that keep their messages (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trigger_states: Vec<TriggerSummary>,
    /// Public key of whoever may stop it (new).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// How it last ended, where it was started again since or will be (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// By what its deployer tells this version of it from others (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Where its artifact lies, `nats://BUCKET/key` (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Whether it is a job (new).
    #[serde(rename = "job", skip_serializing_if = "std::ops::Not::not")]
    pub is_job: bool,
    /// Time it has to end by itself when it is stopped, where its deployer said so, ms (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_ms: Option<u64>,
    /// How far it is kept apart from others (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Names of its issuer's secrets that it uses (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How it was deployed, where that was asked for (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<SealedSettings>,
    /// Its last lines, where they were asked for (new).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<TailLine>,
    /// What it uses, where that was asked for and it runs (new).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceSummary>,
}

/// What a workload's sandbox uses (new).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceSummary {
    /// When that was, by the node's own clock, ms.
    pub at_ms: u64,
    /// Processor time since it was started, ms.
    pub cpu_ms: u64,
    /// Memory, bytes, without files that could be read again.
    pub memory_bytes: u64,
    /// What of memory it may have, where that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

/// What a WPING asks for besides what runs; its body is empty in 0.2.7 (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadPingRequest {
    /// Also what has ended lately.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// What each uses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub usage: bool,
    /// So many of the last lines of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Also how each was deployed, sealed to who deployed it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub settings: bool,
}

/// How a workload was deployed, sealed by its node to the curve key that sealed its environment (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SealedSettings {
    /// Curve key of the node.
    pub by: String,
    /// The member [`crate::deploy::DeployedSettings::NAME`] is a [`crate::deploy::DeployedSettings`] as JSON.
    pub sealed: String,
}

/// How a workload ended (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastExit {
    /// Its exit code; -1 where it was lost or never ran.
    pub code: i32,
    /// Why, for people.
    pub reason: String,
    /// Why, by name.
    #[serde(skip_serializing_if = "ExitCause::is_other")]
    pub cause: ExitCause,
    /// When, seconds since 1970.
    pub at: i64,
}

/// A workload that has ended (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndedWorkload {
    /// Workload id.
    pub id: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// How often it was restarted.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// Whether it was a job.
    #[serde(rename = "job", skip_serializing_if = "std::ops::Not::not")]
    pub is_job: bool,
    /// How it ended.
    #[serde(flatten)]
    pub exit: LastExit,
    /// Public key of whoever started it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// By what its deployer tells this version of it from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The last line of its errors, or of what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
    /// Its last lines, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<TailLine>,
    /// Digest of its artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How it was deployed, sealed to who deployed it, where that was asked for. Kept of what somebody stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<SealedSettings>,
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

//! What a node asks of an agent about one instance, and the agent's answer.

use serde::{Deserialize, Serialize};

use crate::deploy::{ConnectionDetails, HealthCheck, StopSignal, WorkloadType};
use crate::digest::Digest;
use crate::id::{InstanceId, Namespace, WorkloadName};

/// What a ping asks besides; its body is empty as a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ping {
    /// Also the ids of the instances.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ids: bool,
}

/// Answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Instances it hosts now, those that start or stop included.
    pub instances: u32,
    /// Their ids, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<InstanceId>,
}

/// Node → agent on `agentint.<agent>.deploy.<instance>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deploy {
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Its name.
    pub name: WorkloadName,
    /// Its type.
    pub r#type: WorkloadType,
    /// File of the artifact, as the agent sees it.
    pub artifact: String,
    /// SHA-256 of the artifact; the agent verifies it.
    pub digest: Digest,
    /// Whether its name says that it is TypeScript.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_typescript: bool,
    /// Whether instances of other workloads are on the agent, or will be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
    /// What the node had compiled from it earlier.
    #[serde(default)]
    pub precompiled: Option<Precompiled>,
    /// Arguments.
    pub argv: Vec<String>,
    /// Environment, sealed to the agent's key.
    pub environment: String,
    /// The key it was sealed by.
    pub sealed_by: String,
    /// Bounds.
    pub limits: Limits,
    /// Where the function subscribes its triggers itself; without it the node relays.
    #[serde(default)]
    pub triggers: Option<DirectTriggers>,
    /// What tells whether the service works; nothing does if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

/// Machine code that the node had made from an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precompiled {
    /// Its file, as the agent sees it.
    pub path: String,
    /// SHA-256 of that file; the agent verifies it before it loads the code.
    pub digest: Digest,
}

/// Bounds on an instance, decided by the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest call, ms.
    pub call_timeout_ms: u64,
    /// Memory of an instance or of the process, bytes; 0 leaves it to the sandbox.
    pub memory_bytes: u64,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Largest reply, bytes.
    pub reply_bytes: usize,
    /// Largest payload of a call, bytes; unbounded if absent, as those below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// Most host calls of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_calls: Option<u64>,
    /// Most that one call may log, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// Most processor time of one call, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

/// Triggers that an agent subscribes by itself on the workload connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectTriggers {
    /// Servers by IP literal, and the user's own credentials for this workload if there are any.
    pub connection: ConnectionDetails,
    /// Queue group.
    pub queue: String,
    /// Subjects, wildcards allowed.
    pub subjects: Vec<String>,
}

/// Node → agent on `agentint.<agent>.undeploy.<instance>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeploy {
    /// Time the instance has to end by itself, ms.
    pub grace_ms: u64,
    /// What a service is asked with, for the whole grace; SIGINT, and SIGTERM after half of it, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<StopSignal>,
}

/// Node → agent on `agentint.<agent>.update.<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Those members of its environment that are files and have a new text, sealed to the agent's key.
    pub files: String,
    /// The key they were sealed by.
    pub sealed_by: String,
    /// What the service is told by when they are there; nothing tells it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<StopSignal>,
}

/// Why an agent did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectCode {
    /// The body or the subject was not understood.
    Malformed,
    /// The agent has an instance of that id.
    Duplicate,
    /// The agent hosts as many instances as it can.
    Full,
    /// There is no engine for that type.
    Unsupported,
    /// The artifact is missing, unreadable or not what its digest says.
    Artifact,
    /// The environment, or its new files, cannot be opened or put in their places.
    Environment,
    /// The engine did not start it.
    Start,
    /// Its triggers cannot be subscribed.
    Triggers,
    /// It was undeployed while it started.
    Stopped,
    /// No instance of that id runs.
    Absent,
}

/// Answer to deploy, undeploy and update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// Not done, and nothing is left of it.
    Rejected {
        /// For programs.
        code: RejectCode,
        /// For people.
        message: String,
    },
}

//! What a node and its agents say to each other on the internal bus.
//!
//! An agent's credentials let it publish `hostint.<id>.>` and read `agentint.<id>.>` and its own inbox, nothing else, so the
//! subject alone says who speaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deploy::{ConnectionDetails, WorkloadType};
use crate::digest::Digest;
use crate::id::{Namespace, WorkloadId, WorkloadName};

/// Version of this conversation; a node refuses an agent that speaks another one.
pub const PROTOCOL: u32 = 1;

/// Header of a trigger: the concrete subject that called the function.
pub const TRIGGER_SUBJECT: &str = "x-nex-trigger-subject";
/// Header of a trigger's reply: decimal nanoseconds spent in the function.
pub const RUNTIME_NS: &str = "x-nex-runtime-ns";

/// Subjects an agent speaks on.
#[must_use]
pub fn host_subject(agent: &WorkloadId, what: &str) -> String {
    format!("hostint.{agent}.{what}")
}

/// Subjects an agent listens on.
#[must_use]
pub fn agent_subject(agent: &WorkloadId, what: &str) -> String {
    format!("agentint.{agent}.{what}")
}

/// Reads `hostint.<agent>.<what…>`.
#[must_use]
pub fn parse_host_subject(subject: &str) -> Option<(WorkloadId, &str)> {
    let (agent, what) = subject.strip_prefix("hostint.")?.split_once('.')?;
    Some((agent.parse().ok()?, what))
}

/// Who an agent is and where its node listens: all it is given at birth. Has no `Debug`: it carries a seed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The agent's id, later the workload's.
    pub agent: WorkloadId,
    /// `nats://<ip>:<port>` of the internal bus.
    pub bus: String,
    /// Its user JWT.
    pub jwt: String,
    /// Its user seed.
    pub seed: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("agent", &self.agent).field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// Agent → node on `hostint.<id>.handshake`: ready for a workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handshake {
    /// [`PROTOCOL`] of the agent.
    pub protocol: u32,
    /// Version of the agent's software.
    pub version: String,
    /// Types its engines run.
    pub engines: Vec<WorkloadType>,
    /// Curve key to seal the workload's environment to.
    pub xkey: String,
    /// For people: how it is confined.
    #[serde(default)]
    pub message: String,
}

/// Answer to a handshake, a deploy, an undeploy: yes, or why not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accepted {
    /// Whether.
    pub accepted: bool,
    /// Why not.
    #[serde(default)]
    pub message: String,
}

/// Node → agent on `agentint.<id>.deploy`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deploy {
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Its name.
    pub name: WorkloadName,
    /// Its type.
    pub r#type: WorkloadType,
    /// File name of the artifact, as the agent sees it.
    pub artifact: String,
    /// SHA-256 of the artifact; the agent verifies it.
    pub digest: Digest,
    /// What was compiled from it earlier.
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
}

/// Machine code that the node had made from an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precompiled {
    /// Its file, as the agent sees it.
    pub path: String,
    /// SHA-256 of that file; the agent verifies it before it loads the code.
    pub digest: Digest,
}

/// Bounds on the workload, decided by the node.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// Longest call, ms.
    pub call_timeout_ms: u64,
    /// Memory of an instance or of the process, bytes; 0 leaves it to the sandbox.
    pub memory_bytes: u64,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Largest reply, bytes.
    pub reply_bytes: usize,
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

/// Node → agent on `agentint.<id>.undeploy`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Undeploy {
    /// Time the workload has to end by itself, ms.
    pub grace_ms: u64,
}

/// Agent → node on `hostint.<id>.logs`: lines in the order they were written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logs {
    /// The lines.
    pub lines: Vec<LogEntry>,
    /// Lines lost before these because nobody could keep up.
    #[serde(default)]
    pub dropped: u64,
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogEntry {
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// The line.
    pub text: String,
}

/// Agent → node on `hostint.<id>.events`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The service ended by itself.
    Exited {
        /// Its exit code, -1 for a signal.
        code: i32,
        /// For people.
        message: String,
    },
    /// Calls served on the agent's own subscriptions since the last report.
    Executed {
        /// How many ended well.
        succeeded: u64,
        /// Nanoseconds they took together.
        elapsed_nanos: u64,
        /// Subject of the last of them.
        subject: String,
    },
    /// A call failed on the agent's own subscriptions.
    ExecutionFailed {
        /// The subject.
        subject: String,
        /// Why.
        error: String,
    },
}

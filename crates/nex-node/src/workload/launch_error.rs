//! Why a workload was not started.

use nex_protocol::agent::RejectCode;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::seal::SealError;

use crate::agents::InstanceError;
use crate::artifacts::FetchError;
use crate::compiler::CompileError;
use crate::connections::ConnectionError;
use crate::durable::TriggerFailure;
use crate::images::ImageError;
use crate::journal::JournalError;
use crate::pool::{CreateFailed, LeaseError};
use crate::secrets::SecretFailure;

/// Why a workload was not started; whatever was begun is undone.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It was stopped first.
    #[error("Failed to deploy workload: it was stopped before it ran")]
    Stopped,
    /// It did not pass its health check.
    #[error("Failed to deploy workload: {0}")]
    Unhealthy(String),
    /// The node is going down.
    #[error("the node is stopping")]
    NodeStopping,
    /// What an earlier process started cannot be taken over.
    #[error("it cannot be taken over: {0}")]
    Adoption(String),
    /// There are no such machines here.
    #[error("Failed to deploy workload: this node has no machine class '{0}'")]
    MachineClass(String),
    /// There was no agent in time.
    #[error("Failed to get agent client from pool: {0}")]
    Pool(#[from] LeaseError),
    /// Its image has no root here.
    #[error("Failed to deploy workload: {0}")]
    Image(#[from] ImageError),
    /// Its code cannot be made.
    #[error("Failed to deploy workload: {0}")]
    Compile(#[from] CompileError),
    /// No agent could be made in its image.
    #[error("Failed to deploy workload: no agent could be started in its image: {0}")]
    ImageAgent(CreateFailed),
    /// No agent could be made for functions to share.
    #[error("Failed to deploy workload: no agent could be started for functions to share: {0}")]
    SharedAgent(CreateFailed),
    /// The agent cannot run it.
    #[error("Failed to deploy workload: this node's agent has no engine for {0}")]
    Engine(WorkloadType),
    /// Its artifact is not there, or cannot be brought into the sandbox.
    #[error("Failed to deploy workload: its artifact cannot be brought in: {0}")]
    Artifact(String),
    /// The network of its sandbox.
    #[error("Failed to deploy workload: its network: {0}")]
    Network(String),
    /// Its artifact cannot be fetched again.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its environment cannot be sealed.
    #[error("Failed to deploy workload: its environment cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// Its secrets cannot be had.
    #[error("Failed to deploy workload: {0}")]
    Secrets(#[from] SecretFailure),
    /// Its own connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The agent.
    #[error("Failed to deploy workload: {0}")]
    Agent(#[from] InstanceError),
    /// Its triggers.
    #[error("Failed to deploy workload: its triggers cannot be subscribed: {0}")]
    Triggers(#[from] async_nats::SubscribeError),
    /// Those of its triggers that keep their messages.
    #[error("Failed to deploy workload: its trigger: {0}")]
    Durable(#[from] TriggerFailure),
    /// It runs, and would not survive the node.
    #[error("Failed to deploy workload: {0}")]
    Journal(#[from] JournalError),
}

impl LaunchError {
    /// Whether another agent may do what this one did not: it was lost, or did not answer.
    #[must_use]
    pub fn is_the_agents(&self) -> bool {
        matches!(self, Self::Artifact(_) | Self::Network(_) | Self::Agent(InstanceError::Unanswered(_)))
    }

    /// Whether the deployer can do something about it.
    #[must_use]
    pub fn rejected(&self) -> Option<RejectCode> {
        match self {
            Self::Agent(InstanceError::Rejected { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

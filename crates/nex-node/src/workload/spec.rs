//! A deploy request after every check: nothing in it is absent by accident, nothing unbounded.

use std::time::Duration;

use nex_protocol::agent;
use nex_protocol::claims::Claims;
use nex_protocol::deploy::{ConnectionDetails, DeployRequest, WorkloadType};
use nex_protocol::id::{Namespace, WorkloadId, WorkloadName};
use nex_protocol::seal::Environment;

use crate::artifacts::Artifact;

/// A workload as it will run. Has no `Debug`: it holds the environment.
pub struct WorkloadSpec {
    /// Its id for as long as it lives, whatever agents come and go.
    pub id: WorkloadId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: WorkloadName,
    /// Its type.
    pub kind: WorkloadType,
    /// What its deployer said of it.
    pub description: String,
    /// The claims that started it; their issuer may stop it.
    pub claims: Claims,
    /// Its artifact, in the cache.
    pub artifact: Artifact,
    /// Arguments.
    pub argv: Vec<String>,
    /// Its environment, opened; it leaves this process only sealed to the agent.
    pub environment: Environment,
    /// Whether it is started again when it fails.
    pub restarts: bool,
    /// Subjects that call it.
    pub triggers: Vec<String>,
    /// Where they are subscribed, if the deployer brought a connection.
    pub trigger_connection: Option<ConnectionDetails>,
    /// The connection of its host services, if the deployer brought one.
    pub host_services: Option<ConnectionDetails>,
    /// Class of the machine it runs on; the node's standard machine if absent.
    pub machine_class: Option<String>,
    /// Bounds.
    pub limits: agent::Limits,
    /// The request as it came, for the journal.
    pub request: DeployRequest,
    /// When it was deployed, seconds since 1970.
    pub deployed_at: i64,
}

impl std::fmt::Debug for WorkloadSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadSpec")
            .field("id", &self.id)
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl WorkloadSpec {
    /// Longest time of one call.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.call_timeout_ms)
    }
}

//! Which sandboxes this node's agents live in, decided by its configuration and by what the host really gives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_process::{Confinement, Deadline};
use nex_protocol::control::Tags;
use nex_protocol::id::NodeId;
use nex_sandbox::SandboxProvider;
use nex_sandbox::process::{Limits, OpenError, ProcessConfig, ProcessProvider};

use crate::config::NodeConfig;

/// Longest time to find out what the host gives.
const PROBE: Duration = Duration::from_secs(10);
/// Longest time to remove what an earlier process left.
const SWEEP: Duration = Duration::from_secs(20);
/// First uid of agents, where the node is root.
pub const UID_BASE: u32 = 712_000;

/// The node's sandboxes.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    provider: ProcessProvider,
}

impl Sandboxes {
    /// Finds out what the host gives.
    ///
    /// # Errors
    /// [`OpenError`] when that is nothing, or not what the configuration requires.
    pub async fn open(config: &NodeConfig, node: &NodeId, state_dir: &Path, agent_binary: PathBuf) -> Result<Self, OpenError> {
        let limits = &config.workload_limits;
        let process = ProcessConfig {
            node: node.as_str().chars().skip(1).take(12).collect::<String>().to_lowercase(),
            agent_binary,
            state_dir: state_dir.to_owned(),
            limits: Limits {
                memory_bytes: limits.max_memory_bytes,
                pids: limits.processes,
                cpu_percent: limits.cpu_percent,
                tmp_bytes: limits.tmp_bytes,
                ..Limits::default()
            },
            uid_base: UID_BASE,
            tcp_connect: None,
            require: config.require.clone(),
        };
        Ok(Self { provider: ProcessProvider::open(process, Deadline::after(PROBE)).await? })
    }

    /// The provider, for the pool.
    #[must_use]
    pub fn provider(&self) -> Arc<dyn SandboxProvider> {
        Arc::new(self.provider.clone())
    }

    /// Removes sandboxes that an earlier process of this node left; says how many.
    pub async fn sweep(&self) -> usize {
        self.provider.sweep(&BTreeSet::new(), Deadline::after(SWEEP)).await
    }

    /// Waits until everything dropped is removed.
    pub async fn close(&self) {
        self.provider.close(SWEEP).await;
    }

    /// What confines the agents, as tags.
    #[must_use]
    pub fn tags(&self) -> Tags {
        tags(self.provider.confinement())
    }
}

/// What this host gives, for preflight.
///
/// # Errors
/// [`OpenError`] when the agent does not start or does not report.
pub async fn probe(agent_binary: &Path, uid: u32, by: Deadline) -> Result<Confinement, OpenError> {
    nex_sandbox::process::probe(agent_binary, uid, by).await
}

/// How agents are confined, as tags: the kind of sandbox, and what this host lacks of it.
#[must_use]
pub fn tags(confinement: &Confinement) -> Tags {
    let mut tags = Tags::from([("nex.sandbox".to_owned(), "process".to_owned())]);
    let missing: Vec<String> = confinement.missing().into_iter().map(|(part, _)| part.to_string()).collect();
    if !missing.is_empty() {
        tags.insert("nex.sandbox.missing".into(), missing.join(", "));
    }
    tags
}

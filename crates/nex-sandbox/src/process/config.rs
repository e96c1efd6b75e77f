//! What a node decides about its process sandboxes.

use std::path::PathBuf;

use nex_network::Network;
use nex_process::cgroup::CgroupLimits;
use nex_process::confinement::{Layer, Part};

use crate::spec::MachineSize;

/// Limits of one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all its processes together; of each, where there is no cgroup.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU time in percent of one core; absent is unlimited.
    pub cpu_percent: Option<u32>,
    /// Size of each of `/tmp`, `/work` and `/dev/shm`; it counts as memory.
    pub tmp_bytes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Size of one file.
    pub file_bytes: u64,
}

impl Limits {
    pub(super) fn of_cgroup(&self) -> CgroupLimits {
        CgroupLimits { memory_bytes: Some(self.memory_bytes), pids: Some(self.pids), cpu_percent: self.cpu_percent }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, pids: 256, cpu_percent: None, tmp_bytes: 64 << 20, open_files: 4096, file_bytes: 1 << 30 }
    }
}

/// How to make process sandboxes.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Short name of the node, letters and digits; keeps nodes of one host apart.
    pub node: String,
    /// The program that enters the jail (`nex-agent`), absolute.
    pub agent_binary: PathBuf,
    /// Directory of this node's sandboxes, absolute.
    pub state_dir: PathBuf,
    /// Limits of each.
    pub limits: Limits,
    /// First of the 65536 uids for agents. Only root can use them.
    pub uid_base: u32,
    /// Layers without which no agent is started.
    pub require: Vec<Part>,
}

/// What connects the sandboxes.
#[derive(Debug)]
pub enum ProcessNetwork {
    /// A namespace for each, connected by this network.
    Own {
        /// The network.
        network: Network,
        /// What `/etc/resolv.conf` says inside; the host's if absent.
        resolv_conf: Option<String>,
    },
    /// The host's own network.
    Shared {
        /// Why.
        reason: String,
    },
}

impl ProcessNetwork {
    pub(super) fn layer(&self) -> Layer {
        match self {
            Self::Own { .. } => Layer::Held,
            Self::Shared { reason } => Layer::Missing { reason: reason.clone() },
        }
    }

    pub(super) fn resolv_conf(&self) -> Option<String> {
        match self {
            Self::Own { resolv_conf, .. } => resolv_conf.clone(),
            Self::Shared { .. } => None,
        }
    }
}

/// The configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The node's name is unusable.
    #[error("the node's short name {0:?} is unusable; use 1 to 32 letters and digits")]
    Node(String),
    /// A path is relative.
    #[error("{0} must be an absolute path")]
    Relative(PathBuf),
    /// The uids collide with those of people and services.
    #[error("uid_base {0} is unusable; use one from 65536 up to 4294836224 that no account has")]
    UidBase(u32),
}

impl ProcessConfig {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        if self.node.is_empty() || self.node.len() > 32 || !self.node.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidConfig::Node(self.node.chars().take(40).collect()));
        }
        if let Some(path) = [&self.agent_binary, &self.state_dir].into_iter().find(|path| !path.is_absolute()) {
            return Err(InvalidConfig::Relative(path.clone()));
        }
        if !(65_536..=u32::MAX - 131_071).contains(&self.uid_base) {
            return Err(InvalidConfig::UidBase(self.uid_base));
        }
        Ok(())
    }

    /// The limits of a sandbox of this size, or with this much memory.
    pub(super) fn limits(&self, size: Option<MachineSize>, memory_mib: Option<u32>) -> Limits {
        let memory = memory_mib.or(size.map(|size| size.memory_mib));
        Limits {
            memory_bytes: memory.map_or(self.limits.memory_bytes, |mib| u64::from(mib) << 20),
            cpu_percent: size.map(|size| u32::from(size.vcpus) * 100).or(self.limits.cpu_percent),
            ..self.limits
        }
    }
}

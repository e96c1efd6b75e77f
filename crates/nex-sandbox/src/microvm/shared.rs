//! What every microVM of a provider shares: the configuration, the monitor, the network and the host's resources.

use std::path::PathBuf;
use std::sync::Arc;

use nex_network::Network;
use nex_vmm::Vmm;

use super::config::MicroVmConfig;
use super::drives::Drives;
use super::store::TemplateStore;
use crate::host::{HostResources, MACHINE};
use crate::id::SandboxId;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: MicroVmConfig,
    pub(super) vmm: Arc<dyn Vmm>,
    pub(super) network: Network,
    pub(super) host: Arc<HostResources>,
    pub(super) templates: TemplateStore,
    pub(super) drives: Drives,
}

impl Shared {
    /// Monitors run under uids of their own wherever that is possible.
    pub(super) fn own_uids() -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// Where the machine of a sandbox is.
    pub(super) fn machine_dir(&self, id: &SandboxId) -> PathBuf {
        self.host.agents_dir().join(id.as_str()).join(MACHINE)
    }
}

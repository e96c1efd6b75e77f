//! Sandboxes that are microVMs: one machine with its own kernel for each agent, its network the host's gateway and what policy allows.
//!
//! ```text
//! template (one per size) ── snapshot ──► clone ─ identity ─► agent's handshake ─ attach ─► workload
//!    boots once, waits for an identity       │ own tap, address, identity, entropy, clock
//! <state>/agents/<id>/record.json            │
//!                     vm/                    └ the machine's directory: sockets, links to kernel and images
//! <state>/templates/<size-monitor>/<key>/    snapshots, good until kernel, root image or monitor change or the host boots
//! <state>/drives/<artifact>.erofs            artifacts as read-only drives, made once, attached by name
//! ```
//!
//! The monitor, the network and the file system are crates of their own that know nothing of agents; this is where they meet.

mod adopt;
mod config;
mod create;
mod drives;
mod guest;
mod link;
mod pending;
mod sandbox;
mod shared;
mod store;
mod teardown;
mod template;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_network::{Network, NetworkError};
use nex_process::Deadline;
use nex_vmm::{Vmm, VmmKind};

pub use config::{MicroVmConfig, OpenError};

use crate::error::{AdoptError, CreateError};
use crate::host::HostResources;
use crate::id::SandboxId;
use crate::sandbox::{Sandbox, SandboxProvider};
use crate::spec::SandboxSpec;
use drives::Drives;
use shared::Shared;
use store::TemplateStore;

/// Longest time to take the network down.
const NETWORK: Duration = Duration::from_secs(10);

/// Makes sandboxes that are microVMs.
#[derive(Debug, Clone)]
pub struct MicroVmProvider {
    shared: Arc<Shared>,
}

impl MicroVmProvider {
    /// Prepares the directories. The network is the provider's from here on.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(config: MicroVmConfig, vmm: Arc<dyn Vmm>, network: Network) -> Result<Self, OpenError> {
        for (what, path) in [("kernel", &config.kernel), ("root image", &config.rootfs)] {
            if !path.is_file() {
                return Err(OpenError::Missing { what, path: path.clone() });
            }
        }
        let failed = |(path, source)| OpenError::Directory { path, source };
        let host = HostResources::open(&config.node, &config.state_dir, config.uid_base).map_err(failed)?;
        let made = |path: PathBuf| match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(OpenError::Directory { path, source }),
        };
        let drives = made(config.state_dir.join("drives"))?;
        let drives = Drives::open(drives.clone()).map_err(|source| failed((drives, source)))?;
        let templates = TemplateStore::new(made(config.state_dir.join("templates"))?);
        Ok(Self { shared: Arc::new(Shared { config, vmm, network, host: Arc::new(host), templates, drives }) })
    }

    /// Checks that a machine boots on this host: builds the template of the standard size, or boots and discards one machine where
    /// snapshots are off. A machine among those left running proves it as well, where there is a template. Returns how long a machine
    /// takes to boot.
    ///
    /// # Errors
    /// [`OpenError::FirstMachine`]
    pub async fn probe(&self, left: &BTreeSet<SandboxId>, by: Deadline) -> Result<Duration, OpenError> {
        let size = self.shared.config.size;
        if left.iter().any(|id| adopt::left(&self.shared, id).is_ok())
            && let Some(boot) = template::stored(&self.shared, size).await
        {
            return Ok(boot);
        }
        Box::pin(template::probe(&self.shared, size, by)).await.map_err(OpenError::FirstMachine)
    }

    /// Which monitor.
    #[must_use]
    pub fn kind(&self) -> VmmKind {
        self.shared.vmm.kind()
    }

    /// The host's address in the guests' network.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.shared.network.gateway()
    }

    /// What the operator should know of the network.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        self.shared.network.warnings()
    }

    /// Lets guests reach a port of the gateway.
    ///
    /// # Errors
    /// [`NetworkError`]
    pub async fn permit_gateway_port(&self, port: u16) -> Result<(), NetworkError> {
        self.shared.network.permit_gateway_port(port).await
    }

    /// Ports of the gateway's address that lead to the host's 127.0.0.1.
    #[must_use]
    pub fn loopback_ports(&self) -> &BTreeSet<u16> {
        self.shared.network.loopback_ports()
    }

    /// Takes over a machine that an earlier node process made, if its agent's guest still runs and its network is one of ours.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub async fn adopt(&self, id: &SandboxId, by: Deadline) -> Result<Box<dyn Sandbox>, AdoptError> {
        adopt::adopt(&self.shared, id, by).await.map(|sandbox| Box::new(sandbox) as _)
    }

    /// Removes every sandbox and every connection that an earlier node process of this state directory left, except those to keep. Returns
    /// how many sandboxes.
    pub async fn sweep(&self, keep: &BTreeSet<SandboxId>, by: Deadline) -> usize {
        let removed = self.shared.host.sweep(keep, by).await;
        let keep = keep.iter().map(|id| id.as_str().to_owned()).collect();
        self.shared.network.sweep(&keep, by).await;
        removed
    }

    /// Waits for the removal of what was dropped, and leaves the sandboxes to keep to another provider; call it last.
    pub async fn leave(&self, keep: &BTreeSet<SandboxId>, grace: Duration) {
        self.shared.host.close(grace).await;
        let keep = keep.iter().map(|id| id.as_str().to_owned()).collect();
        Box::pin(self.shared.network.leave(&keep, Deadline::after(NETWORK))).await;
    }

    /// Waits for the removal of what was dropped, and takes the network down; call it last.
    pub async fn close(&self, grace: Duration) {
        self.leave(&BTreeSet::new(), grace).await;
    }
}

impl SandboxProvider for MicroVmProvider {
    fn create(&self, spec: SandboxSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Sandbox>, CreateError>> {
        create::create(&self.shared, spec, by).map(|made| made.map(|sandbox| Box::new(sandbox) as _)).boxed()
    }
}

//! Sandboxes that are microVMs: one machine with its own kernel for each agent, its network the host's gateway and what policy allows.
//!
//! ```text
//! template (one per size) ── snapshot ──► clone ─ welcome ─► agent shakes hands ─ attach ─► workload
//!    boots once, waits for an identity       │ own tap, address, identity, entropy, clock
//! <state>/agents/<id>/record.json            │
//!                     vm/                    └ the machine's directory: sockets, links to kernel and images
//! <state>/templates/<size-monitor>/<key>/    snapshots, good until kernel, root image or monitor change or the host boots
//! <state>/drives/<artifact>.erofs            artifacts as read-only drives, made once, attached by name
//! ```
//!
//! The monitor, the network and the file system are crates of their own that know nothing of agents; this is where they meet.

mod create;
mod drives;
mod guest;
mod sandbox;
mod template;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_network::{Network, NetworkError};
use nex_process::Deadline;
use nex_protocol::guest::GuestLimits;
use nex_vmm::{RateLimiter, Vmm, VmmKind};

pub use guest::GuestError;

use crate::host::{HostResources, MACHINE};
use crate::{CreateError, MachineSize, Sandbox, SandboxId, SandboxProvider, SandboxSpec};
use drives::Drives;
use template::Templates;

/// Longest time to take the network down.
const NETWORK: Duration = Duration::from_secs(10);

/// How to make microVMs.
#[derive(Debug, Clone)]
pub struct MicroVmConfig {
    /// Short name of the node, letters and digits; keeps nodes of one host apart.
    pub node: String,
    /// Directory of this node's sandboxes, absolute.
    pub state_dir: PathBuf,
    /// First of the 65536 uids for monitors.
    pub uid_base: u32,
    /// The kernel, an ELF file.
    pub kernel: PathBuf,
    /// The root image, shared by all.
    pub rootfs: PathBuf,
    /// Size of a machine that is asked for without one.
    pub size: MachineSize,
    /// Limits inside the guest.
    pub limits: GuestLimits,
    /// Rates of each guest's network and drives, where the monitor applies them.
    pub rates: Option<RateLimiter>,
    /// Name servers for the guests; none, and they resolve no names.
    pub dns: Vec<IpAddr>,
    /// Whether machines are cloned from a snapshot of the first.
    pub snapshots: bool,
}

/// The provider could not be opened, or no machine works.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of the machine is missing.
    #[error("there is no {what} at {path}; next: run 'nex node preflight', or name another in the configuration")]
    Missing {
        /// Kernel or root image.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A directory could not be made.
    #[error("could not make {path} for microVMs; next: check that the node may write there")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first machine did not come up.
    #[error("the first machine did not come up")]
    FirstMachine(#[source] CreateError),
}

/// Makes sandboxes that are microVMs.
#[derive(Debug, Clone)]
pub struct MicroVmProvider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: MicroVmConfig,
    vmm: Arc<dyn Vmm>,
    network: Network,
    host: Arc<HostResources>,
    templates: Templates,
    drives: Drives,
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
        let templates = Templates::new(made(config.state_dir.join("templates"))?);
        Ok(Self { shared: Arc::new(Shared { config, vmm, network, host: Arc::new(host), templates, drives }) })
    }

    /// Finds out by trying whether a machine boots here: the template of the standard size, which is then there for the clones, or
    /// one machine that is thrown away where there are no snapshots. Returns how long a machine takes to boot here.
    ///
    /// # Errors
    /// [`OpenError::FirstMachine`]
    pub async fn prove(&self, by: Deadline) -> Result<Duration, OpenError> {
        let size = self.shared.config.size;
        Box::pin(template::prove(&self.shared, size, by)).await.map_err(OpenError::FirstMachine)
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

    /// Removes every sandbox and every connection that an earlier node process of this state directory left. Returns how many sandboxes.
    pub async fn sweep(&self, by: Deadline) -> usize {
        let removed = self.shared.host.sweep(&BTreeSet::new(), by).await;
        self.shared.network.sweep(&BTreeSet::new(), by).await;
        removed
    }

    /// Waits for the removal of what was dropped, and takes the network down; call it last.
    pub async fn close(&self, grace: Duration) {
        self.shared.host.close(grace).await;
        self.shared.network.close(Deadline::after(NETWORK)).await;
    }
}

impl SandboxProvider for MicroVmProvider {
    fn create(&self, spec: SandboxSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Sandbox>, CreateError>> {
        create::create(&self.shared, spec, by).map(|made| made.map(|sandbox| Box::new(sandbox) as _)).boxed()
    }
}

impl Shared {
    /// Monitors run under uids of their own wherever that is possible.
    fn own_uids() -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// Where the machine of a sandbox is.
    fn machine_dir(&self, id: &SandboxId) -> PathBuf {
        self.host.agents_dir().join(id.as_str()).join(MACHINE)
    }
}

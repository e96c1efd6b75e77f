//! What a node decides about its microVMs, and why a provider of them could not be opened.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use nex_protocol::guest::GuestLimits;
use nex_vmm::RateLimiter;

use crate::error::CreateError;
use crate::spec::MachineSize;

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

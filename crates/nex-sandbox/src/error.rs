//! Why a sandbox could not be made or taken over, or a file not brought into one.

use std::io;
use std::path::PathBuf;

use nex_process::cgroup::CgroupError;
use nex_process::{Elapsed, ProcessId, SpawnError};
use nex_vmm::VmmKind;

use crate::id::{InvalidName, SandboxId};
use crate::report::ExitReport;

/// A sandbox could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The identity cannot be handed over.
    #[error("the identity of sandbox {0} has a line break or is too long")]
    Identity(SandboxId),
    /// The id was used before.
    #[error("sandbox {0} exists already; every sandbox needs an id of its own")]
    Taken(SandboxId),
    /// No uid is free.
    #[error("all {0} sandboxes of this node are in use; stop one first")]
    Full(u32),
    /// A directory could not be prepared.
    #[error("could not prepare {path} for a sandbox; check that the node may write there and the disk has room")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent could not be started.
    #[error("the agent of a sandbox did not start")]
    Spawn(#[from] SpawnError),
    /// The limits could not be applied.
    #[error("the limits of a sandbox could not be applied")]
    Cgroup(#[from] CgroupError),
    /// The agent ended before it had its identity.
    #[error("the agent of a sandbox ended at once: {0}")]
    Died(ExitReport),
    /// The network refused a connection.
    #[error("the machine could not be connected")]
    Network(#[from] nex_network::NetworkError),
    /// The monitor refused the machine.
    #[error("the machine could not be started")]
    Vmm(#[from] nex_vmm::VmmError),
    /// The guest did not come up as it should.
    #[error("the guest did not come up")]
    Guest(#[from] GuestError),
    /// The machine runs, but not as it should.
    #[error("the machine runs, but its guest is of no use; it and its monitor said: {console}")]
    NotUp {
        /// The end of what they wrote, one line of text.
        console: String,
        /// What was waited for.
        #[source]
        source: Box<CreateError>,
    },
    /// The node stops.
    #[error("the sandbox was not made because the node stops")]
    Stopped(#[source] io::Error),
    /// No time was left.
    #[error("the agent of a sandbox did not take its identity in time")]
    Late(#[from] Elapsed),
}

/// A sandbox that another process made cannot be taken over. Its provider's next sweep removes it.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is none, or nothing can be read of it.
    #[error("it is not there, or without a readable record")]
    Unknown,
    /// It died with or after the process that made it.
    #[error("its first process, {0}, has ended")]
    Ended(ProcessId),
    /// It was made by another provider.
    #[error("it lives in {}, and this node's agents in {} now", home(*was), home(*now))]
    Another {
        /// The monitor of its machine, if it is one.
        was: Option<VmmKind>,
        /// The monitor of the machines that are made now, if it is machines.
        now: Option<VmmKind>,
    },
    /// Its device or namespace is gone, or not of the network that is configured now.
    #[error("its network is gone, or is not the one that is configured now")]
    Cut,
    /// The network refused.
    #[error("its network could not be taken over")]
    Network(#[from] nex_network::NetworkError),
    /// Its directory is not what its monitor leaves.
    #[error("its monitor could not be taken over")]
    Vmm(#[from] nex_vmm::VmmError),
    /// Its record could not be changed.
    #[error("its record could not be brought up to date")]
    Record(#[from] CreateError),
}

fn home(monitor: Option<VmmKind>) -> &'static str {
    match monitor {
        Some(VmmKind::Firecracker) => "a machine under Firecracker",
        Some(VmmKind::Qemu) => "a machine under QEMU",
        None => "a jailed process",
    }
}

/// A file could not be brought into a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The name is unusable.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is another file of this name.
    #[error("the sandbox has another file named {0} already")]
    Taken(String),
    /// Linking and copying failed.
    #[error("could not bring {file} into the sandbox; check that it exists and the disk has room")]
    Failed {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A conversation with a guest failed. *Trust:* everything a guest sends is bounded, and shown as text only.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The stream broke.
    #[error("the guest's channel broke")]
    Broken(#[from] io::Error),
    /// It speaks another language.
    #[error("the guest said something else than was asked: {0}; next: rebuild the root image with this version's 'nex rootfs'")]
    Unexpected(String),
    /// It could not do it.
    #[error("the guest could not do it: {0}")]
    Failed(String),
    /// It said nothing in time.
    #[error("the guest did not answer in time")]
    Late,
}

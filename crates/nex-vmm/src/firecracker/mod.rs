//! Firecracker: its API over a unix socket, and its jailer.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::Deadline;

use crate::error::VmmError;
use crate::machine::{Machine, Snapshot, Vmm, VmmKind};
use crate::spec::MachineSpec;

/// Firecracker's jailer, which puts the monitor into a chroot inside the machine's directory.
#[derive(Debug, Clone)]
pub struct Jailer {
    /// The program `jailer`.
    pub binary: PathBuf,
}

/// Firecracker as a monitor.
#[derive(Debug, Clone)]
pub struct Firecracker {
    binary: PathBuf,
    jailer: Option<Jailer>,
}

impl Firecracker {
    /// The program `firecracker` at that path, put into a jail if there is a jailer (which needs root, and
    /// [`MachineSpec::run_as`]).
    #[must_use]
    pub fn new(binary: PathBuf, jailer: Option<Jailer>) -> Self {
        Self { binary, jailer }
    }
}

impl Vmm for Firecracker {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    fn version(&self, _by: Deadline) -> BoxFuture<'_, Result<String, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Firecracker, what: "be asked yet" }) }.boxed()
    }

    fn boot(&self, _spec: MachineSpec, _by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Firecracker, what: "boot yet" }) }.boxed()
    }

    fn restore<'a>(
        &'a self,
        _spec: MachineSpec,
        _from: &'a Snapshot,
        _by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Firecracker, what: "restore yet" }) }.boxed()
    }
}

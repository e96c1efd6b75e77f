//! QEMU: its `microvm` machine, driven by QMP.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::Deadline;

use crate::error::VmmError;
use crate::machine::{Machine, Snapshot, Vmm, VmmKind};
use crate::spec::MachineSpec;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The processor, by `/dev/kvm`.
    Kvm,
    /// QEMU's translator: works everywhere, slower.
    Tcg,
}

/// QEMU as a monitor.
#[derive(Debug, Clone)]
pub struct Qemu {
    binary: PathBuf,
    accel: Accel,
}

impl Qemu {
    /// The program `qemu-system-x86_64` at that path.
    #[must_use]
    pub fn new(binary: PathBuf, accel: Accel) -> Self {
        Self { binary, accel }
    }
}

impl Vmm for Qemu {
    fn kind(&self) -> VmmKind {
        VmmKind::Qemu
    }

    fn version(&self, _by: Deadline) -> BoxFuture<'_, Result<String, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what: "be asked yet" }) }.boxed()
    }

    fn boot(&self, _spec: MachineSpec, _by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what: "boot yet" }) }.boxed()
    }

    fn restore<'a>(
        &'a self,
        _spec: MachineSpec,
        _from: &'a Snapshot,
        _by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>> {
        async move { Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what: "restore yet" }) }.boxed()
    }
}

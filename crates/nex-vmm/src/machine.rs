//! The driver interface of both monitors.

use std::fmt;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use nex_process::{Deadline, Exit, ProcessId};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::error::VmmError;
use crate::kind::VmmKind;
use crate::qemu::memory::SealedMemory;
use crate::spec::{MachineSpec, RateLimiter};

/// A paused machine on disk. Any number of machines can be restored from it, at once too; it must not be changed while one runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// The monitor that wrote it, the only one that can read it.
    pub kind: VmmKind,
    /// The guest's memory.
    pub memory: PathBuf,
    /// The state of its devices.
    pub state: PathBuf,
    /// How much memory the machine had, MiB. A restored one has as much.
    pub memory_mib: u32,
    /// How many virtual processors it had.
    pub vcpus: u8,
    /// The memory as QEMU's machines share it.
    #[serde(skip)]
    pub(crate) sealed: SealedMemory,
}

impl Snapshot {
    pub(crate) fn new(kind: VmmKind, memory: PathBuf, state: PathBuf, spec: &MachineSpec) -> Self {
        Self { kind, memory, state, memory_mib: spec.memory_mib, vcpus: spec.vcpus, sealed: SealedMemory::default() }
    }

    /// Checks that it fits this monitor and machine.
    pub(crate) fn check(&self, kind: VmmKind, spec: &MachineSpec) -> Result<(), VmmError> {
        if self.kind == kind && self.memory_mib == spec.memory_mib && self.vcpus == spec.vcpus {
            return Ok(());
        }
        let (has, memory, vcpus) = (self.kind, self.memory_mib, self.vcpus);
        Err(VmmError::Invalid(format!("the snapshot is one of {has} with {memory} MiB and {vcpus} vCPUs; next: boot instead")))
    }
}

/// A machine that another process started and has left running.
#[derive(Debug, Clone, Copy)]
pub struct LeftMachine<'a> {
    /// Name it was started with.
    pub id: &'a str,
    /// Its directory.
    pub dir: &'a Path,
    /// The monitor's user.
    pub run_as: Option<u32>,
    /// The monitor's process.
    pub process: ProcessId,
}

/// Starts machines.
pub trait Vmm: Send + Sync + fmt::Debug {
    /// Which monitor it is.
    fn kind(&self) -> VmmKind;

    /// Asks the program which version it is, for example `1.12.1`.
    ///
    /// # Errors
    /// When the program cannot be started, or is another one.
    fn version(&self, by: Deadline) -> BoxFuture<'_, Result<String, VmmError>>;

    /// Boots a machine; its processors run when this returns, its kernel has just begun.
    ///
    /// # Errors
    /// When the monitor cannot be started or refuses the machine. Its process is gone then; its directory is the caller's.
    fn boot(&self, spec: MachineSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>>;

    /// Starts a machine from a snapshot; its processors run when this returns. The specification must describe the same devices as that of the
    /// machine the snapshot was taken of; names, drives' contents, tap and directory may differ.
    ///
    /// # Errors
    /// As [`Vmm::boot`]; also when the snapshot is of another monitor or does not fit.
    fn restore<'a>(
        &'a self,
        spec: MachineSpec,
        from: &'a Snapshot,
        by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>>;

    /// Takes over a running machine: its channel and its end. Its monitor's commands are not to be had any more, and how it ends stays
    /// [unknown](Exit::UNKNOWN). Must be called inside a runtime.
    ///
    /// # Errors
    /// When its directory is not what this monitor leaves.
    fn adopt(&self, left: LeftMachine<'_>) -> Result<Box<dyn Machine>, VmmError>;
}

/// A running machine. Dropping it kills its process.
pub trait Machine: Send + Sync + fmt::Debug {
    /// The monitor's process.
    fn process(&self) -> ProcessId;

    /// The next stream from the guest: under QEMU the serial port named `nex` (one stream at a time, the next call after it was dropped finds the
    /// same port), under Firecracker the next connection that the guest makes to vsock port 1024 of its host.
    ///
    /// # Errors
    /// [`VmmError::Late`] when none comes in time, [`VmmError::Ended`] when the machine ends before.
    fn channel(&self, by: Deadline) -> BoxFuture<'_, Result<UnixStream, VmmError>>;

    /// Replaces the contents of the guest's metadata service.
    ///
    /// # Errors
    /// [`VmmError::Unsupported`] under QEMU.
    fn set_metadata<'a>(&'a self, value: &'a serde_json::Value, by: Deadline) -> BoxFuture<'a, Result<(), VmmError>>;

    /// Puts another image into a drive; slots count from 0, the root is none. Its size is a multiple of 4096 bytes. A guest that has
    /// already probed the drive must probe it again (unbind and bind its driver).
    ///
    /// # Errors
    /// When the image cannot be read, or there is no such drive.
    fn swap_drive<'a>(&'a self, slot: usize, image: &'a Path, by: Deadline) -> BoxFuture<'a, Result<(), VmmError>>;

    /// Takes this much memory from the guest (MiB); zero gives all of it back. The guest follows when it can.
    ///
    /// # Errors
    /// When the machine has no balloon, or the guest no driver for it yet.
    fn set_balloon(&self, mib: u32, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>>;

    /// Changes the rate limits of the network interface.
    ///
    /// # Errors
    /// [`VmmError::Unsupported`] under QEMU.
    fn limit_network(&self, rx: RateLimiter, tx: RateLimiter, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>>;

    /// Pauses the machine for good and writes it into that directory, which exists. The caller ends the machine afterwards.
    ///
    /// # Errors
    /// When it cannot be written. A machine that was itself restored cannot be written under QEMU.
    fn snapshot<'a>(&'a self, into: &'a Path, by: Deadline) -> BoxFuture<'a, Result<Snapshot, VmmError>>;

    /// Presses the power button: the guest may end by itself, or not.
    ///
    /// # Errors
    /// [`VmmError::Unsupported`] under QEMU, whose `microvm` has no such button; use the channel.
    fn press_power(&self, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>>;

    /// Waits until the process has ended and its last lines were delivered.
    fn exited(&self) -> BoxFuture<'_, Exit>;

    /// Kills it and waits.
    fn kill(&self) -> BoxFuture<'_, Exit>;
}

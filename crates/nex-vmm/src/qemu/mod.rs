//! QEMU: its `microvm` machine, driven by QMP.
//!
//! The process inherits everything that is not an image as a descriptor: the command stream, the channel's socket, the memory, the tap. So
//! the node keeps the directory, and QEMU may create nothing in it.

mod accel;
mod argv;
mod machine;
pub(crate) mod memory;
pub(crate) mod qmp;
mod streams;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{ChildSpec, Deadline};

use crate::adopted::{AdoptedMachine, Channel};
use crate::error::VmmError;
use crate::files::{Fallback, Files};
use crate::kind::VmmKind;
use crate::machine::{LeftMachine, Machine, Snapshot, Vmm};
use crate::process::{Process, ask_version, run_as};
use crate::spec::MachineSpec;
use machine::QemuMachine;
use qmp::Qmp;
use streams::{CHANNEL, stream_pair};

pub use accel::Accel;

/// How long a tap may be busy, and the delay between two attempts to open it.
const TAP_BUSY: Duration = Duration::from_secs(1);
const TAP_RETRY: Duration = Duration::from_millis(5);

/// Descriptors that one process inherits.
struct InheritedFds {
    qmp: OwnedFd,
    memory: OwnedFd,
    tap: Option<OwnedFd>,
}

/// QEMU as a monitor, version 7.2 or newer.
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

    /// Starts the process; its processors run at once, or wait for a snapshot.
    async fn start(&self, spec: MachineSpec, from: Option<&Snapshot>, by: Deadline) -> Result<QemuMachine, VmmError> {
        check(&spec)?;
        let files = Files::open(&spec.dir, Fallback::Symlink)?;
        files.place_images(&spec, true).await?;
        files.grant_access(spec.run_as)?;
        let memory = match from {
            None => memory::fresh(spec.memory_mib)?.into(),
            Some(from) => memory::load(&from.sealed, &from.memory, from.memory_mib).await?,
        };
        // A machine that shares its memory with others cannot be written.
        let own_memory = match from {
            None => Some(memory.try_clone().map_err(VmmError::file("keep the memory of", &spec.dir))?),
            Some(_) => None,
        };
        let (ours, theirs) = stream_pair(&spec)?;
        let tap = open_tap(&spec, by).await?;
        let process = self.spawn(&spec, &files, InheritedFds { qmp: theirs, memory, tap }, from.is_some())?;
        let opened = process.begin(by, Qmp::open(ours)).await?;
        tracing::debug!(id = %spec.id, "the monitor answers");
        Ok(QemuMachine::new(process, files, opened, own_memory.map(Into::into), spec))
    }

    fn spawn(
        &self,
        spec: &MachineSpec,
        files: &Files,
        InheritedFds { qmp, memory, tap }: InheritedFds,
        restore: bool,
    ) -> Result<Process, VmmError> {
        let channel = OwnedFd::from(files.listen(CHANNEL, None)?);
        let params = argv::LaunchParams {
            accel: self.accel,
            tsc_khz: nex_process::tsc::tsc_khz(),
            qmp: qmp.as_raw_fd(),
            channel: channel.as_raw_fd(),
            memory: memory.as_raw_fd(),
            tap: tap.as_ref().map(AsRawFd::as_raw_fd),
            restore,
        };
        let mut child = ChildSpec::new(&self.binary).args(argv::argv(spec, params)).current_dir(&spec.dir).no_new_privs();
        for fd in [qmp, channel, memory].into_iter().chain(tap) {
            child = child.inherit(fd);
        }
        if let Some(netns) = &spec.netns {
            child = child.netns(netns);
        }
        if let Some(user) = spec.run_as {
            child = if self.accel == Accel::Kvm { run_as(child, user) } else { child.run_as(user) };
        }
        Process::start(VmmKind::Qemu, child, &spec.console)
    }

    async fn boot_machine(&self, spec: MachineSpec, by: Deadline) -> Result<Box<dyn Machine>, VmmError> {
        Ok(Box::new(self.start(spec, None, by).await?))
    }

    async fn restore_machine(&self, spec: MachineSpec, from: &Snapshot, by: Deadline) -> Result<Box<dyn Machine>, VmmError> {
        from.check(VmmKind::Qemu, &spec)?;
        let state = tokio::fs::read(&from.state).await.map_err(VmmError::file("read", &from.state))?;
        let machine = self.start(spec, Some(from), by).await?;
        match machine.load(state, by).await {
            Ok(()) => Ok(Box::new(machine)),
            Err(error) => {
                let _exit = machine.kill().await;
                Err(error)
            }
        }
    }
}

async fn open_tap(spec: &MachineSpec, by: Deadline) -> Result<Option<OwnedFd>, VmmError> {
    let Some(nic) = &spec.nic else { return Ok(None) };
    let opened = once_free(|| nex_process::tap::open_tap(&nic.tap, spec.netns.as_deref()), by).await;
    opened.map(Some).map_err(VmmError::file("open the tap", nic.tap.as_ref()))
}

/// Opens something that may be busy for a moment. Whoever made the tap has closed it by now, but a program that was being started
/// meanwhile has a copy of the descriptor until it runs.
async fn once_free<T>(mut open: impl FnMut() -> io::Result<T>, by: Deadline) -> io::Result<T> {
    let by = by.within(TAP_BUSY);
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && !by.is_past() => tokio::time::sleep(TAP_RETRY).await,
            done => return done,
        }
    }
}

fn check(spec: &MachineSpec) -> Result<(), VmmError> {
    spec.check()?;
    if spec.metadata {
        return Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what: "give a guest a metadata service; use the channel" });
    }
    Ok(())
}

impl Vmm for Qemu {
    fn kind(&self) -> VmmKind {
        VmmKind::Qemu
    }

    fn version(&self, by: Deadline) -> BoxFuture<'_, Result<String, VmmError>> {
        ask_version(VmmKind::Qemu, &self.binary, "QEMU emulator version ", by).boxed()
    }

    fn boot(&self, spec: MachineSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Machine>, VmmError>> {
        self.boot_machine(spec, by).boxed()
    }

    fn restore<'a>(
        &'a self,
        spec: MachineSpec,
        from: &'a Snapshot,
        by: Deadline,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, VmmError>> {
        self.restore_machine(spec, from, by).boxed()
    }

    fn adopt(&self, left: LeftMachine<'_>) -> Result<Box<dyn Machine>, VmmError> {
        let files = Files::open(left.dir, Fallback::Symlink)?;
        let process = Process::adopt(VmmKind::Qemu, left.process);
        Ok(Box::new(AdoptedMachine::new(process, files, Channel::Connect(CHANNEL))))
    }
}

#[cfg(test)]
mod tests;

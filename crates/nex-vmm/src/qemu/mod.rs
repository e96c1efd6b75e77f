//! QEMU: its `microvm` machine, driven by QMP.
//!
//! The process gets everything that is not an image as a descriptor: the stream for its commands, the socket of the channel, the memory, the
//! tap. So its directory stays ours, and it needs no right to make anything.

mod argv;
mod machine;
mod memory;
pub(crate) mod qmp;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{ChildSpec, Deadline};
use serde_json::{Value, json};

use crate::error::VmmError;
use crate::files::{Fallback, Files};
use crate::machine::{Machine, Snapshot, Vmm, VmmKind};
use crate::process::{Process, ask_version, run_as};
use crate::qemu::machine::QemuMachine;
use crate::qemu::qmp::Qmp;
use crate::spec::MachineSpec;

pub(crate) use memory::Sealed;

/// Name of the socket of the channel.
const CHANNEL: &str = "nex.sock";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The processor, by `/dev/kvm`.
    Kvm,
    /// QEMU's translator: works everywhere, slower.
    Tcg,
}

/// What a process gets as descriptors of things made for it alone.
struct Ends {
    qmp: OwnedFd,
    memory: OwnedFd,
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
        files.admit(spec.run_as)?;
        let memory = match from {
            None => memory::fresh(spec.memory_mib)?.into(),
            Some(from) => memory::load(&from.sealed, &from.memory, from.memory_mib).await?,
        };
        // A machine that shares its memory with others cannot be written.
        let own_memory = match from {
            None => Some(memory.try_clone().map_err(VmmError::file("keep the memory of", &spec.dir))?),
            Some(_) => None,
        };
        let (ours, theirs) = pair(&spec)?;
        let process = self.spawn(&spec, &files, Ends { qmp: theirs, memory }, from.is_some())?;
        let opened = process.begin(by, Qmp::open(ours)).await?;
        tracing::debug!(id = %spec.id, "the monitor answers");
        Ok(QemuMachine::new(process, files, opened, own_memory.map(Into::into), spec))
    }

    fn spawn(&self, spec: &MachineSpec, files: &Files, Ends { qmp, memory }: Ends, restore: bool) -> Result<Process, VmmError> {
        let channel = OwnedFd::from(files.listen(CHANNEL, None)?);
        let open = |tap: &str| nex_process::tap::open_tap(tap, spec.netns.as_deref());
        let tap = spec.nic.as_ref().map(|nic| open(&nic.tap).map_err(VmmError::file("open the tap", nic.tap.as_ref())));
        let tap = tap.transpose()?;
        let given = argv::Given {
            accel: self.accel,
            tsc_khz: nex_process::tsc::tsc_khz(),
            qmp: qmp.as_raw_fd(),
            channel: channel.as_raw_fd(),
            memory: memory.as_raw_fd(),
            tap: tap.as_ref().map(AsRawFd::as_raw_fd),
            restore,
        };
        let mut child = ChildSpec::new(&self.binary).args(argv::argv(spec, given)).current_dir(&spec.dir).no_new_privs();
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

fn check(spec: &MachineSpec) -> Result<(), VmmError> {
    spec.check()?;
    if spec.metadata {
        return Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what: "give a guest a metadata service; use the channel" });
    }
    Ok(())
}

/// The stream for commands: our end, and QEMU's.
fn pair(spec: &MachineSpec) -> Result<(tokio::net::UnixStream, OwnedFd), VmmError> {
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok::<_, std::io::Error>((tokio::net::UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(VmmError::file("make a stream for", &spec.dir))
}

/// What both ends of a migration must agree on: memory in a shared file is not in the stream; its end is an event.
fn capabilities() -> Value {
    let on = |name: &str| json!({"capability": name, "state": true});
    json!({"capabilities": [on("x-ignore-shared"), on("events")]})
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
}

#[cfg(test)]
mod tests;

//! A running QEMU.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{Deadline, Exit, ProcessId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};

use super::qmp::Qmp;
use super::streams::{CHANNEL, stream_pair};
use super::{argv, memory};
use crate::error::VmmError;
use crate::files::{self, Files};
use crate::kind::VmmKind;
use crate::machine::{Machine, Snapshot};
use crate::process::Process;
use crate::spec::{MachineSpec, RateLimiter};

/// Largest state of devices that is read or written, bytes; a usual one has 60 kB.
const MAX_STATE: u64 = 64 << 20;

/// The command connection; one command at a time.
#[derive(Debug)]
struct Control {
    qmp: Qmp,
    /// How often the image of each drive was replaced.
    generations: Vec<u32>,
}

/// Exclusive use of the command connection. Dropped without [`ControlGuard::end`], the connection is closed for good.
struct ControlGuard<'a> {
    held: MutexGuard<'a, Option<Control>>,
    control: Control,
}

impl ControlGuard<'_> {
    /// Releases the connection for the next command, unless an answer may still be pending.
    fn end<T>(mut self, outcome: Result<T, VmmError>) -> Result<T, VmmError> {
        if matches!(outcome, Ok(_) | Err(VmmError::Refused { .. })) {
            *self.held = Some(self.control);
        }
        outcome
    }
}

/// A QEMU process and its connections.
#[derive(Debug)]
pub(super) struct QemuMachine {
    process: Process,
    files: Files,
    /// `None` after a command was cancelled: a late answer would be taken for that of the next command.
    control: Mutex<Option<Control>>,
    /// `None` for a restored machine, which shares memory with others.
    memory: Option<File>,
    /// The stream to a restored guest, connected before it resumed.
    channel: Mutex<Option<UnixStream>>,
    spec: MachineSpec,
}

impl QemuMachine {
    pub(super) fn new(process: Process, files: Files, qmp: Qmp, memory: Option<File>, spec: MachineSpec) -> Self {
        let control = Mutex::new(Some(Control { qmp, generations: vec![0; spec.drives.len()] }));
        Self { process, files, control, memory, channel: Mutex::new(None), spec }
    }

    /// Waits for exclusive use of the command connection.
    async fn control(&self, by: Deadline, doing: &'static str) -> Result<ControlGuard<'_>, VmmError> {
        let Ok(mut held) = by.bound(self.control.lock()).await else { return Err(VmmError::Late { doing }) };
        let lost = || VmmError::Malformed { vmm: VmmKind::Qemu, why: "an earlier command was cancelled".to_owned() };
        let control = held.take().ok_or_else(lost)?;
        Ok(ControlGuard { held, control })
    }

    /// Loads the state of the devices and lets the processors run.
    pub(super) async fn load(&self, state: Vec<u8>, by: Deadline) -> Result<(), VmmError> {
        // A guest that resumes with a disconnected port closes it and may lose data sent at that moment. So connect first.
        *self.channel.lock().await = Some(self.connect(by).await?);
        let (mut ours, theirs) = stream_pair(&self.spec)?;
        let doing = "load the snapshot";
        let mut guard = self.control(by, doing).await?;
        let qmp = &mut guard.control.qmp;
        let work = async {
            qmp.execute("migrate-set-capabilities", &capabilities()).await?;
            qmp.pass_fd("state", theirs).await?;
            qmp.execute("migrate-incoming", &json!({"uri": "fd:state"})).await?;
            let feed = async {
                // If QEMU rejects the state, it reports the reason itself.
                let _rejected = ours.write_all(&state).await;
                drop(ours);
                Ok(())
            };
            tokio::try_join!(feed, qmp.migrated())?;
            qmp.execute("cont", &Value::Null).await.map(drop)
        };
        let outcome = self.process.during(by, doing, work).await;
        guard.end(outcome)
    }

    async fn connect(&self, by: Deadline) -> Result<UnixStream, VmmError> {
        let connect = async { self.files.connect(CHANNEL).await.map_err(VmmError::file("connect to", CHANNEL.as_ref())) };
        self.process.during(by, "connect to the guest", connect).await
    }

    async fn swap(&self, slot: usize, image: &Path, by: Deadline) -> Result<(), VmmError> {
        let limited = self.spec.drive_limiter.is_some();
        let node = argv::drive_node(slot);
        if slot >= self.spec.drives.len() {
            return Err(VmmError::Invalid(format!("it has no drive {slot}")));
        }
        self.files.place(image, &files::drive(slot)).await?;
        let doing = "replace a drive";
        let mut guard = self.control(by, doing).await?;
        let control = &mut guard.control;
        let work = async {
            let Some(generation) = control.generations.get_mut(slot) else { return Ok(()) };
            let (old, new) = (*generation, *generation + 1);
            let added = argv::file_node(&argv::file_node_name(&node, new), &files::drive(slot), limited);
            control.qmp.execute("blockdev-add", &added).await?;
            // From here on the new node's name is used, even if the next command fails.
            *generation = new;
            let reopened = json!({"options": [argv::raw_node(&node, new)]});
            control.qmp.execute("blockdev-reopen", &reopened).await?;
            let unused = json!({"node-name": argv::file_node_name(&node, old)});
            control.qmp.execute("blockdev-del", &unused).await.map(drop)
        };
        let outcome = self.process.during(by, doing, work).await;
        guard.end(outcome)
    }

    async fn balloon(&self, mib: u32, by: Deadline) -> Result<(), VmmError> {
        // QEMU takes the size that remains with the guest.
        let keep = json!({"value": u64::from(self.spec.memory_mib.saturating_sub(mib).max(1)) << 20});
        let doing = "set the balloon";
        let mut guard = self.control(by, doing).await?;
        let outcome = self.process.during(by, doing, guard.control.qmp.execute("balloon", &keep)).await;
        guard.end(outcome).map(drop)
    }

    async fn write(&self, into: &Path, by: Deadline) -> Result<Snapshot, VmmError> {
        let restored = || VmmError::Unsupported { vmm: VmmKind::Qemu, what: "write a machine that was itself restored" };
        let own = self.memory.as_ref().ok_or_else(restored)?;
        let own = own.try_clone().map_err(VmmError::file("keep the memory of", &self.spec.dir))?;
        let (ours, theirs) = stream_pair(&self.spec)?;
        let (memory, state) = (into.join("memory"), into.join("state"));
        let doing = "write a snapshot";
        let mut guard = self.control(by, doing).await?;
        let outcome = self.process.during(by, doing, write_state(&mut guard.control.qmp, ours, theirs)).await;
        let bytes = guard.end(outcome)?;
        let save = async {
            tokio::fs::write(&state, &bytes).await.map_err(VmmError::file("write", &state))?;
            memory::save(own, &memory).await
        };
        self.process.during(by, doing, save).await?;
        Ok(Snapshot::new(VmmKind::Qemu, memory, state, &self.spec))
    }
}

async fn write_state(qmp: &mut Qmp, ours: UnixStream, theirs: OwnedFd) -> Result<Vec<u8>, VmmError> {
    qmp.execute("migrate-set-capabilities", &capabilities()).await?;
    qmp.execute("stop", &Value::Null).await?;
    qmp.pass_fd("state", theirs).await?;
    qmp.execute("migrate", &json!({"uri": "fd:state"})).await?;
    let read = async {
        let mut bytes = Vec::new();
        let read = ours.take(MAX_STATE).read_to_end(&mut bytes).await;
        read.map_err(|error| VmmError::Malformed { vmm: VmmKind::Qemu, why: format!("its state broke off: {error}") })?;
        Ok(bytes)
    };
    let (bytes, ()) = tokio::try_join!(read, qmp.migrated())?;
    Ok(bytes)
}

/// Capabilities of a migration: shared memory stays out of the stream, and its end is an event.
fn capabilities() -> Value {
    let on = |name: &str| json!({"capability": name, "state": true});
    json!({"capabilities": [on("x-ignore-shared"), on("events")]})
}

impl Machine for QemuMachine {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    fn channel(&self, by: Deadline) -> BoxFuture<'_, Result<UnixStream, VmmError>> {
        async move {
            match self.channel.lock().await.take() {
                Some(stream) => Ok(stream),
                None => self.connect(by).await,
            }
        }
        .boxed()
    }

    fn set_metadata<'a>(&'a self, _value: &'a Value, _by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        unsupported("give a guest a metadata service; use the channel")
    }

    fn swap_drive<'a>(&'a self, slot: usize, image: &'a Path, by: Deadline) -> BoxFuture<'a, Result<(), VmmError>> {
        self.swap(slot, image, by).boxed()
    }

    fn set_balloon(&self, mib: u32, by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        self.balloon(mib, by).boxed()
    }

    fn limit_network(&self, _rx: RateLimiter, _tx: RateLimiter, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        unsupported("limit the network; limit the tap")
    }

    fn snapshot<'a>(&'a self, into: &'a Path, by: Deadline) -> BoxFuture<'a, Result<Snapshot, VmmError>> {
        self.write(into, by).boxed()
    }

    fn press_power(&self, _by: Deadline) -> BoxFuture<'_, Result<(), VmmError>> {
        unsupported("press a power button, its machine has none; ask on the channel")
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        self.process.exited().boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Exit> {
        self.process.kill().boxed()
    }
}

fn unsupported<'a>(what: &'static str) -> BoxFuture<'a, Result<(), VmmError>> {
    std::future::ready(Err(VmmError::Unsupported { vmm: VmmKind::Qemu, what })).boxed()
}

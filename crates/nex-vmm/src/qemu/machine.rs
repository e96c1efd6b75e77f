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

use super::{argv, capabilities, memory, pair};
use crate::error::VmmError;
use crate::files::{self, Files};
use crate::machine::{Machine, Snapshot, VmmKind};
use crate::process::Process;
use crate::qemu::qmp::Qmp;
use crate::spec::{MachineSpec, RateLimiter};

/// Largest state of devices that is read or written, bytes; a usual one has 60 kB.
const MAX_STATE: u64 = 64 << 20;

/// What commands need one after the other.
#[derive(Debug)]
struct Control {
    qmp: Qmp,
    /// Which image each drive has, counted from the first.
    generations: Vec<u32>,
}

/// The conversation while it is used; dropped without [`Turn::end`], it is over for good.
struct Turn<'a> {
    held: MutexGuard<'a, Option<Control>>,
    control: Control,
}

impl Turn<'_> {
    /// Leaves it to the next one, unless an answer may still be under way.
    fn end<T>(mut self, outcome: Result<T, VmmError>) -> Result<T, VmmError> {
        if matches!(outcome, Ok(_) | Err(VmmError::Refused { .. })) {
            *self.held = Some(self.control);
        }
        outcome
    }
}

/// A QEMU process and the conversation with it.
#[derive(Debug)]
pub(super) struct QemuMachine {
    process: Process,
    files: Files,
    /// Empty after a conversation was given up half-way: what comes then would answer another question.
    control: Mutex<Option<Control>>,
    /// `None` for a restored machine, whose memory is partly another's.
    memory: Option<File>,
    /// The stream to a restored guest, connected before it woke up.
    channel: Mutex<Option<UnixStream>>,
    spec: MachineSpec,
}

impl QemuMachine {
    pub(super) fn new(process: Process, files: Files, qmp: Qmp, memory: Option<File>, spec: MachineSpec) -> Self {
        let control = Mutex::new(Some(Control { qmp, generations: vec![0; spec.drives.len()] }));
        Self { process, files, control, memory, channel: Mutex::new(None), spec }
    }

    /// The conversation, for one piece of work.
    async fn control(&self, by: Deadline, doing: &'static str) -> Result<Turn<'_>, VmmError> {
        let Ok(mut held) = by.bound(self.control.lock()).await else { return Err(VmmError::Late { doing }) };
        let lost = || VmmError::Nonsense { vmm: VmmKind::Qemu, why: "an earlier conversation was broken off".to_owned() };
        let control = held.take().ok_or_else(lost)?;
        Ok(Turn { held, control })
    }

    /// Loads the state of the devices and lets the processors run.
    pub(super) async fn load(&self, state: Vec<u8>, by: Deadline) -> Result<(), VmmError> {
        // A guest that wakes up to a port without a host closes it, and may throw away what is said just then. So there is one.
        *self.channel.lock().await = Some(self.connect(by).await?);
        let (mut ours, theirs) = pair(&self.spec)?;
        let doing = "load the snapshot";
        let mut turn = self.control(by, doing).await?;
        let qmp = &mut turn.control.qmp;
        let work = async {
            qmp.execute("migrate-set-capabilities", &capabilities()).await?;
            qmp.give("state", theirs).await?;
            qmp.execute("migrate-incoming", &json!({"uri": "fd:state"})).await?;
            let feed = async {
                // A QEMU that does not take it says why itself.
                let _cut_off = ours.write_all(&state).await;
                drop(ours);
                Ok(())
            };
            tokio::try_join!(feed, qmp.migrated())?;
            qmp.execute("cont", &Value::Null).await.map(drop)
        };
        let outcome = self.process.during(by, doing, work).await;
        turn.end(outcome)
    }

    async fn connect(&self, by: Deadline) -> Result<UnixStream, VmmError> {
        let connect =
            async { self.files.connect(super::CHANNEL).await.map_err(VmmError::file("connect to", super::CHANNEL.as_ref())) };
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
        let mut turn = self.control(by, doing).await?;
        let control = &mut turn.control;
        let work = async {
            let Some(generation) = control.generations.get_mut(slot) else { return Ok(()) };
            let (old, new) = (*generation, *generation + 1);
            let added = argv::file_node(&argv::file_node_name(&node, new), &files::drive(slot), limited);
            control.qmp.execute("blockdev-add", &added).await?;
            // From here on the new node's name is taken, whatever becomes of it.
            *generation = new;
            let reopened = json!({"options": [argv::raw_node(&node, new)]});
            control.qmp.execute("blockdev-reopen", &reopened).await?;
            let unused = json!({"node-name": argv::file_node_name(&node, old)});
            control.qmp.execute("blockdev-del", &unused).await.map(drop)
        };
        let outcome = self.process.during(by, doing, work).await;
        turn.end(outcome)
    }

    async fn balloon(&self, mib: u32, by: Deadline) -> Result<(), VmmError> {
        // QEMU is told what the guest is to keep.
        let keep = json!({"value": u64::from(self.spec.memory_mib.saturating_sub(mib).max(1)) << 20});
        let doing = "set the balloon";
        let mut turn = self.control(by, doing).await?;
        let outcome = self.process.during(by, doing, turn.control.qmp.execute("balloon", &keep)).await;
        turn.end(outcome).map(drop)
    }

    async fn write(&self, into: &Path, by: Deadline) -> Result<Snapshot, VmmError> {
        let restored = || VmmError::Unsupported { vmm: VmmKind::Qemu, what: "write a machine that was itself restored" };
        let own = self.memory.as_ref().ok_or_else(restored)?;
        let own = own.try_clone().map_err(VmmError::file("keep the memory of", &self.spec.dir))?;
        let (ours, theirs) = pair(&self.spec)?;
        let (memory, state) = (into.join("memory"), into.join("state"));
        let doing = "write a snapshot";
        let mut turn = self.control(by, doing).await?;
        let outcome = self.process.during(by, doing, write_state(&mut turn.control.qmp, ours, theirs)).await;
        let bytes = turn.end(outcome)?;
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
    qmp.give("state", theirs).await?;
    qmp.execute("migrate", &json!({"uri": "fd:state"})).await?;
    let read = async {
        let mut bytes = Vec::new();
        let read = ours.take(MAX_STATE).read_to_end(&mut bytes).await;
        read.map_err(|error| VmmError::Nonsense { vmm: VmmKind::Qemu, why: format!("its state broke off: {error}") })?;
        Ok(bytes)
    };
    let (bytes, ()) = tokio::try_join!(read, qmp.migrated())?;
    Ok(bytes)
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

//! One running microVM with its agent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_process::{Deadline, Exit};
use nex_vmm::{Machine, VmmError, VmmKind};
use tokio::sync::Mutex;

use super::guest::Guest;
use super::shared::Shared;
use super::teardown::{remove, remove_later};
use crate::error::{AttachError, CreateError};
use crate::id::{SandboxId, check_file_name};
use crate::output::StderrTail;
use crate::record::SandboxRecord;
use crate::report::ExitReport;
use crate::sandbox::Sandbox;

/// The drive that holds the artifact, or the root of a workload that is an image.
pub(super) const SLOT: u8 = 0;
/// Longest time to attach a drive; the guest mounts it in milliseconds.
const ATTACH: Duration = Duration::from_secs(20);
/// Longest time to send a guest a message.
const SEND: Duration = Duration::from_secs(1);
/// How long a guest takes to power off after its agent has ended.
const POWER_OFF: Duration = Duration::from_secs(2);

/// A machine with an agent in it. Its owner stops it; dropped, it is killed and removed in the background.
#[derive(Debug)]
pub(super) struct MicroVm {
    shared: Arc<Shared>,
    record: SandboxRecord,
    machine: Option<Box<dyn Machine>>,
    /// The channel; of a machine that was taken over, not before it is needed.
    guest: Mutex<Option<Guest>>,
    drive: Mutex<Drive>,
    stderr_tail: StderrTail,
    /// Nothing is left to do on drop.
    settled: AtomicBool,
}

/// What is in a machine's drive.
#[derive(Debug)]
enum Drive {
    /// Nothing yet.
    Empty,
    /// A file, which the agent sees under this path.
    File { file: PathBuf, path: PathBuf },
    /// What another process put in.
    Left,
}

impl MicroVm {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: SandboxRecord,
        machine: Box<dyn Machine>,
        guest: Guest,
        stderr_tail: StderrTail,
    ) -> Self {
        let (guest, drive) = (Mutex::new(Some(guest)), Mutex::new(Drive::Empty));
        Self { shared, record, machine: Some(machine), guest, drive, stderr_tail, settled: AtomicBool::new(false) }
    }

    /// One that another node process made, which has ended since. Its monitor's output had one reader.
    pub(super) fn adopted(shared: &Arc<Shared>, record: SandboxRecord, machine: Box<dyn Machine>) -> Self {
        let (shared, machine, stderr_tail) = (Arc::clone(shared), Some(machine), StderrTail::default());
        let (guest, drive) = (Mutex::new(None), Mutex::new(Drive::Left));
        Self { shared, record, machine, guest, drive, stderr_tail, settled: AtomicBool::new(false) }
    }

    fn report(&self, exit: Exit) -> ExitReport {
        let kills = self.record.cgroup.as_ref().map_or(0, nex_process::cgroup::Cgroup::out_of_memory_kills);
        ExitReport { exit, out_of_memory: kills > 0, stderr_tail: self.stderr_tail.get() }
    }

    async fn ended(&self) -> Exit {
        match &self.machine {
            Some(machine) => machine.exited().await,
            None => Exit::UNKNOWN,
        }
    }

    async fn attach_drive(&self, file: &Path) -> Result<PathBuf, AttachError> {
        let failed = |source: io::Error| AttachError::Failed { file: file.to_owned(), source };
        let Some(machine) = &self.machine else { return Err(failed(io::ErrorKind::NotConnected.into())) };
        let by = Deadline::after(ATTACH);
        let (drives, of) = (self.shared.drives.clone(), file.to_owned());
        let image = tokio::task::spawn_blocking(move || drives.of(&of)).await.map_err(|error| failed(error.into()))?;
        let image = image.map_err(|error| failed(io::Error::other(error)))?;
        let emptied = empty_metadata(machine.as_ref(), self.shared.vmm.kind(), by).await;
        emptied.map_err(|error| failed(io::Error::other(error)))?;
        machine.swap_drive(SLOT.into(), &image, by).await.map_err(|error| failed(io::Error::other(error)))?;
        let mut guest = self.guest.lock().await;
        let guest = guest.as_mut().ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
        let path = guest.attach(SLOT, by).await.map_err(|error| failed(io::Error::other(error)))?;
        Ok(path.into())
    }

    async fn end(&self, grace: Duration) -> ExitReport {
        let exit = match &self.machine {
            Some(machine) => {
                let told = self.power_off(machine.as_ref(), grace).await;
                let timeout = if told { grace + POWER_OFF } else { Duration::ZERO };
                match Deadline::after(timeout).bound(machine.exited()).await {
                    Ok(exit) => exit,
                    Err(_late) => machine.kill().await,
                }
            }
            None => Exit::UNKNOWN,
        };
        // Before the cgroup is removed: it holds the count of memory kills.
        let report = self.report(exit);
        self.settled.store(remove(&self.shared, &self.record).await, Ordering::Release);
        report
    }

    /// Whether the guest was told.
    async fn power_off(&self, machine: &dyn Machine, grace: Duration) -> bool {
        let by = Deadline::after(SEND);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let tell = async {
            let mut guest = self.guest.lock().await;
            let guest = match &mut *guest {
                Some(guest) => guest,
                None => guest.insert(Guest::open(machine, by).await?),
            };
            Ok::<_, CreateError>(guest.power_off(grace_ms, by).await?)
        };
        matches!(by.bound(tell).await, Ok(Ok(())))
    }
}

/// Empties what a guest was told of itself, before its workload is there: it could read its agent's identity and impersonate it.
pub(super) async fn empty_metadata(machine: &dyn Machine, kind: VmmKind, by: Deadline) -> Result<(), VmmError> {
    match kind {
        VmmKind::Firecracker => machine.set_metadata(&serde_json::json!({}), by).await,
        // Its guests are told on the channel.
        VmmKind::Qemu => Ok(()),
    }
}

impl Sandbox for MicroVm {
    fn id(&self) -> &SandboxId {
        &self.record.id
    }

    /// One file per machine, because it has one drive. The guest mounts it; the agent checks its digest.
    fn attach_file<'a>(&'a self, file: &'a Path, name: &'a str) -> BoxFuture<'a, Result<PathBuf, AttachError>> {
        async move {
            check_file_name(name)?;
            let mut drive = self.drive.lock().await;
            match &*drive {
                Drive::File { file: present, path } if present == file => Ok(path.clone()),
                Drive::File { .. } | Drive::Left => Err(AttachError::Taken(name.to_owned())),
                Drive::Empty => {
                    let path = self.attach_drive(file).await?;
                    *drive = Drive::File { file: file.to_owned(), path: path.clone() };
                    Ok(path)
                }
            }
        }
        .boxed()
    }

    fn exited(&self) -> BoxFuture<'_, ExitReport> {
        async { self.report(self.ended().await) }.boxed()
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ExitReport> {
        self.end(grace).boxed()
    }

    fn record(&self) -> SandboxRecord {
        self.record.clone()
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        match self.machine.take() {
            Some(machine) if !self.settled.load(Ordering::Acquire) => remove_later(&self.shared, &self.record, machine),
            _ => {}
        }
    }
}

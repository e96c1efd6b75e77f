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
use crate::error::AttachError;
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
    guest: Mutex<Guest>,
    /// The file in the drive, and where the agent sees it.
    attached: Mutex<Option<(PathBuf, PathBuf)>>,
    stderr_tail: StderrTail,
    /// Nothing is left to do on drop.
    settled: AtomicBool,
}

impl MicroVm {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: SandboxRecord,
        machine: Box<dyn Machine>,
        guest: Guest,
        stderr_tail: StderrTail,
    ) -> Self {
        let (machine, guest) = (Some(machine), Mutex::new(guest));
        Self { shared, record, machine, guest, attached: Mutex::new(None), stderr_tail, settled: AtomicBool::new(false) }
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
        let path = self.guest.lock().await.attach(SLOT, by).await.map_err(|error| failed(io::Error::other(error)))?;
        Ok(path.into())
    }

    async fn end(&self, grace: Duration) -> ExitReport {
        let exit = match &self.machine {
            Some(machine) => {
                let told = self.power_off(grace).await;
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
    async fn power_off(&self, grace: Duration) -> bool {
        let by = Deadline::after(SEND);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let told = by.bound(async { self.guest.lock().await.power_off(grace_ms, by).await }).await;
        matches!(told, Ok(Ok(())))
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
            let mut attached = self.attached.lock().await;
            match &*attached {
                Some((present, path)) if present == file => Ok(path.clone()),
                Some(_) => Err(AttachError::Taken(name.to_owned())),
                None => {
                    let path = self.attach_drive(file).await?;
                    *attached = Some((file.to_owned(), path.clone()));
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

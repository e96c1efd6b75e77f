//! One running jailed process with its agent.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nex_network::NetworkError;
use nex_process::cgroup::MemoryUse;
use nex_process::{Child, Deadline, Exit, Rung, Signal, crash_point};

use super::shared::Shared;
use crate::error::AttachError;
use crate::id::{SandboxId, check_file_name};
use crate::output::StderrTail;
use crate::record::{KILL, REMOVAL, SandboxRecord, remove_leftover};
use crate::removal::Removal;
use crate::report::ExitReport;
use crate::sandbox::Sandbox;

/// A sandbox made here or adopted. Its owner stops it; dropped, it is killed and removed in the background.
#[derive(Debug)]
pub struct ProcessSandbox {
    shared: Arc<Shared>,
    pub(super) record: SandboxRecord,
    /// Its first process; taken when it is given away.
    child: Option<Child>,
    /// Empty where another node process started it: its pipe had one reader.
    stderr_tail: StderrTail,
    /// Nothing is left to do on drop: it was removed, or given away.
    settled: AtomicBool,
}

impl ProcessSandbox {
    pub(super) fn new(shared: &Arc<Shared>, record: SandboxRecord, child: Child, stderr_tail: StderrTail) -> Self {
        Self { shared: Arc::clone(shared), record, child: Some(child), stderr_tail, settled: AtomicBool::new(false) }
    }

    /// One that another node process made, which has ended since.
    pub(super) fn adopted(shared: &Arc<Shared>, record: SandboxRecord) -> Self {
        let child = Child::adopt(record.leader);
        Self::new(shared, record, child, StderrTail::default())
    }

    /// Gives the agent what it waits for.
    pub(super) async fn feed(&self, lines: &[u8]) -> io::Result<()> {
        match &self.child {
            Some(child) => child.feed(lines).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn report(&self, exit: Exit) -> ExitReport {
        let kills = self.record.cgroup.as_ref().map_or(0, nex_process::cgroup::Cgroup::out_of_memory_kills);
        ExitReport { exit, out_of_memory: kills > 0, stderr_tail: self.stderr_tail.get() }
    }

    /// Gives up ownership: the agent runs on, for another node process to adopt.
    #[must_use]
    pub fn release(mut self) -> SandboxRecord {
        self.settled.store(true, Ordering::Release);
        if let Some(child) = self.child.take() {
            let _runs_on = child.release();
        }
        self.record.clone()
    }

    async fn ended(&self) -> Exit {
        match &self.child {
            Some(child) => child.exited().await,
            None => Exit::UNKNOWN,
        }
    }

    async fn end(&self, grace: Duration) -> ExitReport {
        let exit = match &self.child {
            Some(child) => child.shutdown(&[Rung::Signal(Signal::SIGTERM, grace), KILL]).await.exit,
            None => None,
        };
        // Before the cgroup is removed: it holds the count of memory kills.
        let report = self.report(exit.unwrap_or(Exit::UNKNOWN));
        crash_point("sandbox: its process is gone");
        let removed = remove_leftover(&self.record, Deadline::after(REMOVAL)).await;
        crash_point("sandbox: it is removed");
        // By now its namespace is gone, or about to go. The kernel takes a grace period to free a veth; nobody waits for that.
        let (shared, link) = (Arc::clone(&self.shared), self.record.veth.clone());
        self.shared.host.removal.spawn("detach", async move { shared.detach(link.as_ref()).await });
        self.settled.store(removed, Ordering::Release);
        self.shared.host.uids().free(self.record.uid);
        report
    }
}

impl Sandbox for ProcessSandbox {
    fn id(&self) -> &SandboxId {
        &self.record.id
    }

    fn attach_file<'a>(&'a self, file: &'a Path, name: &'a str) -> BoxFuture<'a, Result<PathBuf, AttachError>> {
        async move {
            check_file_name(name)?;
            let target = self.record.dir.join("artifact").join(name);
            let (from, to) = (file.to_owned(), target.clone());
            // A copy, where there cannot be a link, takes its time.
            let linked = tokio::task::spawn_blocking(move || link_or_copy(&from, &to)).await;
            match linked.map_err(io::Error::from).flatten() {
                Ok(()) => Ok(if self.record.own_root { Path::new("/artifact").join(name) } else { target }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(AttachError::Taken(name.to_owned())),
                Err(source) => Err(AttachError::Failed { file: file.to_owned(), source }),
            }
        }
        .boxed()
    }

    fn detach_file<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        async move {
            if check_file_name(name).is_ok() {
                tokio::fs::remove_file(self.record.dir.join("artifact").join(name)).await.ok();
            }
        }
        .boxed()
    }

    fn restrict_network(&self) -> BoxFuture<'_, Result<(), NetworkError>> {
        async {
            match (self.shared.network(), &self.record.veth) {
                (Some(network), Some(link)) => network.restrict(link).await,
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn exited(&self) -> BoxFuture<'_, ExitReport> {
        async { self.report(self.ended().await) }.boxed()
    }

    fn memory(&self) -> Option<MemoryUse> {
        self.record.cgroup.as_ref()?.memory()
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ExitReport> {
        self.end(grace).boxed()
    }

    fn record(&self) -> SandboxRecord {
        self.record.clone()
    }
}

impl Drop for ProcessSandbox {
    fn drop(&mut self) {
        if self.settled.load(Ordering::Acquire) {
            return;
        }
        let child = self.child.take();
        let (shared, link) = (Arc::clone(&self.shared), self.record.veth.clone());
        let end = async move {
            if let Some(child) = &child {
                child.shutdown(&[KILL, Rung::Kill]).await;
            }
            shared.detach(link.as_ref()).await;
        };
        Removal::start(&self.shared.host, self.record.clone(), end.boxed());
    }
}

/// Links a file, or copies it where links cannot go. The bytes are never written again, so one file serves all sandboxes.
pub(super) fn link_or_copy(file: &Path, target: &Path) -> io::Result<()> {
    let source = fs::metadata(file)?;
    if !source.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    if let Ok(present) = fs::symlink_metadata(target) {
        let same = (present.dev(), present.ino()) == (source.dev(), source.ino());
        return if same { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) };
    }
    let executable = fs::Permissions::from_mode(0o555);
    if fs::hard_link(file, target).is_ok() {
        // The agent's uid is not the node's: readable and executable for all, writable for none.
        return fs::set_permissions(target, executable);
    }
    let draft = target.with_file_name(".copy");
    let copied = fs::copy(file, &draft).and_then(|_| fs::set_permissions(&draft, executable));
    copied.and_then(|()| fs::rename(&draft, target)).inspect_err(|_| drop(fs::remove_file(&draft)))
}

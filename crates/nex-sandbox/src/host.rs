//! What every kind of sandbox has of this host: a directory, a uid of its own, a group; and their removal.
//!
//! ```text
//! <state>/agents/<id>/record.json   how to remove it, written before its agent is told anything
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nex_process::cgroup::{Cgroup, CgroupLimits, Cgroups};
use nex_process::{Deadline, ProcessId, TaskScope};

use crate::record::REMOVAL;
use crate::tree::remove_tree;
use crate::uids::{MAX_UIDS, UidAllocator};
use crate::{CreateError, SandboxId, SandboxRecord, remove_leftover};

/// A machine's directory in that of its sandbox; it is its monitor's.
pub(crate) const MACHINE: &str = "vm";
/// A record is well below this.
const MAX_RECORD: u64 = 64 * 1024;

/// Where a node's sandboxes are, and which uids they have.
#[derive(Debug)]
pub(crate) struct HostResources {
    node: String,
    state_dir: PathBuf,
    cgroups: Cgroups,
    uids: Mutex<UidAllocator>,
    /// Removes what is dropped.
    pub(crate) removal: TaskScope,
}

impl HostResources {
    /// Makes the directory and learns which uids are taken.
    pub(crate) fn open(node: &str, state_dir: &Path, uid_base: u32) -> Result<Self, (PathBuf, io::Error)> {
        let agents = state_dir.join("agents");
        fs::create_dir_all(&agents).map_err(|error| (agents.clone(), error))?;
        let mut uids = UidAllocator::new(uid_base, node);
        for record in records(&agents) {
            // Whoever holds this uid may still run; nobody else gets it before it is known to be gone.
            uids.reserve(record.uid);
        }
        Ok(Self {
            node: node.to_owned(),
            state_dir: state_dir.to_owned(),
            cgroups: Cgroups::detect(),
            uids: Mutex::new(uids),
            removal: TaskScope::new("sandbox removal"),
        })
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    pub(crate) fn agents_dir(&self) -> PathBuf {
        self.state_dir.join("agents")
    }

    pub(crate) fn uids(&self) -> MutexGuard<'_, UidAllocator> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No name of a node begins with another's and a dash, so no node takes another's groups for its own.
    fn cgroup_prefix(&self) -> String {
        format!("nex-{}-", self.node)
    }

    fn cgroup_name(&self, id: &SandboxId) -> String {
        format!("{}{id}", self.cgroup_prefix())
    }

    /// The group of a sandbox, with its limits and nobody in it.
    pub(crate) fn cgroup(&self, id: &SandboxId, limits: &CgroupLimits) -> Result<Cgroup, CreateError> {
        Ok(self.cgroups.create(&self.cgroup_name(id), limits)?)
    }

    /// Removes every sandbox that an earlier node process of this state directory left, except those to keep. Returns how many.
    pub(crate) async fn sweep(&self, keep: &BTreeSet<SandboxId>, by: Deadline) -> usize {
        let mut removed = 0;
        for entry in fs::read_dir(self.agents_dir()).into_iter().flatten().flatten() {
            let dir = entry.path();
            if entry.file_name().to_str().is_some_and(|name| keep.iter().any(|id| id.as_str() == name)) {
                continue;
            }
            match read_record(&dir) {
                Some(record) => {
                    remove_leftover(&record, by).await;
                    self.uids().free(record.uid);
                }
                None => self.remove_half_made(&dir, by).await,
            }
            removed += 1;
        }
        for cgroup in self.cgroups.leftovers(&self.cgroup_prefix()) {
            let kept = |path: &PathBuf| keep.iter().any(|id| path.ends_with(self.cgroup_name(id)));
            if !cgroup.paths().iter().any(kept) {
                drop(cgroup.destroy(by).await);
            }
        }
        removed
    }

    /// Its node died before it was recorded, or its maker was stopped half-way: a jailed agent ended with the node that held its stdin, a
    /// monitor may live on in there.
    async fn remove_half_made(&self, dir: &Path, by: Deadline) {
        // A monitor with a root of its own is found by its uid only, which is that of its directory.
        let uid = fs::metadata(dir.join(MACHINE)).ok().map(|found| found.uid()).filter(|uid| self.uids().is_ours(*uid));
        let of_user = uid.into_iter().flat_map(ProcessId::all_of_user).map(|(process, _)| process);
        for process in ProcessId::all_inside(dir).into_iter().chain(of_user) {
            let _deaf = process.kill_and_wait(by).await;
        }
        if let Err(error) = remove_tree(dir) {
            tracing::warn!(dir = %dir.display(), %error, "what was left of a half-made sandbox is still there");
        }
    }

    /// Waits for the removal of what was dropped; call it last.
    pub(crate) async fn close(&self, grace: Duration) {
        self.removal.shutdown(grace).await;
    }
}

/// A uid and a directory taken for a sandbox; dropped before it is done, it gives them back.
pub(crate) struct Draft {
    host: Arc<HostResources>,
    pub(crate) uid: Option<u32>,
    dir: Option<PathBuf>,
    done: bool,
}

impl Draft {
    /// Takes a uid, if sandboxes have their own here.
    pub(crate) fn new(host: &Arc<HostResources>, own_uid: bool) -> Result<Self, CreateError> {
        let uid = own_uid.then(|| host.uids().take().ok_or(CreateError::Full(MAX_UIDS))).transpose()?;
        Ok(Self { host: Arc::clone(host), uid, dir: None, done: false })
    }

    /// The sandbox's directory; one that strangers pass through if its agent or monitor must walk here by itself.
    pub(crate) fn directory(&mut self, id: &SandboxId, passed_through: bool) -> Result<PathBuf, CreateError> {
        let dir = self.host.agents_dir().join(id.as_str());
        let mode = if passed_through { 0o711 } else { 0o700 };
        match fs::DirBuilder::new().mode(mode).create(&dir) {
            Ok(()) => self.dir = Some(dir.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CreateError::Taken(id.clone())),
            Err(source) => return Err(CreateError::Directory { path: dir, source }),
        }
        if passed_through {
            let above = [self.host.agents_dir(), self.host.state_dir.clone()];
            above.iter().try_for_each(|path| let_pass(path).map_err(directory(path)))?;
        }
        Ok(dir)
    }

    /// A directory inside it.
    pub(crate) fn sub_directory(&self, path: &Path, mode: u32, owner: Option<u32>) -> Result<(), CreateError> {
        let make = || {
            fs::DirBuilder::new().mode(mode).create(path)?;
            // The mode given at creation is subject to the umask.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            owner.map_or(Ok(()), |uid| chown(path, Some(uid), Some(uid)))
        };
        make().map_err(directory(path))
    }

    /// A sandbox has taken over what was taken.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (host, uid) = (Arc::clone(&self.host), self.uid);
        match self.dir.take().map(|dir| remove_tree(&dir).map_err(|error| (dir, error))) {
            // Who was killed a moment ago may still make a file.
            Some(Err((dir, _busy))) if tokio::runtime::Handle::try_current().is_ok() => {
                self.host.removal.spawn("remove half-made sandbox", async move {
                    host.remove_half_made(&dir, Deadline::after(REMOVAL)).await;
                    host.uids().free(uid);
                });
            }
            Some(Err((_dir, error))) => tracing::warn!(%error, "a failed sandbox is still there, the next sweep removes it"),
            None | Some(Ok(())) => host.uids().free(uid),
        }
    }
}

/// Puts a process into a group. That waits for the kernel (an RCU grace period, up to 15 ms): not on a thread that others share.
pub(crate) async fn join(cgroup: Cgroup, pid: i32) -> Result<(), CreateError> {
    let joined = tokio::task::spawn_blocking(move || cgroup.add(pid)).await;
    joined.map_err(|stopped| CreateError::Stopped(stopped.into()))?.map_err(CreateError::from)
}

pub(crate) fn directory(path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Directory { path, source }
}

/// Written whole or not at all: a record is read after crashes.
pub(crate) fn write_record(record: &SandboxRecord) -> Result<(), CreateError> {
    let (path, draft) = (record.dir.join("record.json"), record.dir.join("record.draft"));
    let write = || {
        fs::write(&draft, serde_json::to_vec(record)?)?;
        fs::rename(&draft, path)
    };
    write().map_err(directory(&record.dir))
}

/// Lets others pass through a directory, without letting them see what is in it.
fn let_pass(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o011 == 0o011 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o011)) }
}

fn records(agents: &Path) -> Vec<SandboxRecord> {
    fs::read_dir(agents).into_iter().flatten().flatten().filter_map(|entry| read_record(&entry.path())).collect()
}

/// The record in a sandbox's directory, unless it is missing, unreadable or speaks of another directory.
fn read_record(dir: &Path) -> Option<SandboxRecord> {
    let path = dir.join("record.json");
    if fs::metadata(&path).ok()?.len() > MAX_RECORD {
        return None;
    }
    let record: SandboxRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.dir == dir).then_some(record)
}

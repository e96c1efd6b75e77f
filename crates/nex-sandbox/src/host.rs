//! The host resources of every sandbox: a directory, a uid of its own and a cgroup; and their removal.
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

use crate::error::CreateError;
use crate::id::SandboxId;
use crate::record::{REMOVAL, SandboxRecord, remove_leftover};
use crate::tree::remove_tree;
use crate::uids::{MAX_UIDS, UidAllocator};

/// A machine's directory inside its sandbox's; its monitor owns it.
pub(crate) const MACHINE: &str = "vm";
/// A record is well below this.
const MAX_RECORD: u64 = 64 * 1024;

/// The directory, cgroups and uids of a node's sandboxes.
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
            // A process with this uid may still run; the uid is not given out again before it has ended.
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

    /// Node names have no dash, so no node's prefix matches another node's groups.
    fn cgroup_prefix(&self) -> String {
        format!("nex-{}-", self.node)
    }

    fn cgroup_name(&self, id: &SandboxId) -> String {
        format!("{}{id}", self.cgroup_prefix())
    }

    /// The cgroup of a sandbox with its limits; still empty.
    pub(crate) fn cgroup(&self, id: &SandboxId, limits: &CgroupLimits) -> Result<Cgroup, CreateError> {
        Ok(self.cgroups.create(&self.cgroup_name(id), limits)?)
    }

    /// The record of a sandbox, if it has one.
    pub(crate) fn record(&self, id: &SandboxId) -> Option<SandboxRecord> {
        read_record(&self.agents_dir().join(id.as_str())).filter(|record| record.id == *id)
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

    /// The node died before the record was written, or the creation was cancelled. A jailed agent ended with the node that held its
    /// stdin; a monitor may still run.
    async fn remove_half_made(&self, dir: &Path, by: Deadline) {
        // A monitor in a chroot can be found by its uid only, which owns its directory.
        let uid = fs::metadata(dir.join(MACHINE)).ok().map(|found| found.uid()).filter(|uid| self.uids().is_ours(*uid));
        let of_user = uid.into_iter().flat_map(ProcessId::all_of_user).map(|(process, _)| process);
        for process in ProcessId::all_inside(dir).into_iter().chain(of_user) {
            let _late = process.kill_and_wait(by).await;
        }
        // Its own removal may have come first.
        if let Err(error) = remove_tree(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
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

    /// Makes the sandbox's directory; other users may traverse it if its agent or monitor opens the path itself.
    pub(crate) fn directory(&mut self, id: &SandboxId, traversable: bool) -> Result<PathBuf, CreateError> {
        let dir = self.host.agents_dir().join(id.as_str());
        let mode = if traversable { 0o711 } else { 0o700 };
        match fs::DirBuilder::new().mode(mode).create(&dir) {
            Ok(()) => self.dir = Some(dir.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CreateError::Taken(id.clone())),
            Err(source) => return Err(CreateError::Directory { path: dir, source }),
        }
        if traversable {
            let above = [self.host.agents_dir(), self.host.state_dir.clone()];
            above.iter().try_for_each(|path| allow_traversal(path).map_err(directory(path)))?;
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

    /// The sandbox now owns the uid and the directory.
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
            // A process that was just killed may still create a file.
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

/// Puts a process into a cgroup. That waits for the kernel (an RCU grace period, up to 15 ms), so it runs on a blocking thread.
pub(crate) async fn join(cgroup: Cgroup, pid: i32) -> Result<(), CreateError> {
    let joined = tokio::task::spawn_blocking(move || cgroup.add(pid)).await;
    joined.map_err(|stopped| CreateError::Stopped(stopped.into()))?.map_err(CreateError::from)
}

pub(crate) fn directory(path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Directory { path, source }
}

/// Writes the record atomically: it is read after crashes.
pub(crate) fn write_record(record: &SandboxRecord) -> Result<(), CreateError> {
    let (path, draft) = (record.dir.join("record.json"), record.dir.join("record.draft"));
    let write = || {
        fs::write(&draft, serde_json::to_vec(record)?)?;
        fs::rename(&draft, path)
    };
    write().map_err(directory(&record.dir))
}

/// Lets other users traverse a directory without listing it.
fn allow_traversal(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o011 == 0o011 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o011)) }
}

fn records(agents: &Path) -> Vec<SandboxRecord> {
    fs::read_dir(agents).into_iter().flatten().flatten().filter_map(|entry| read_record(&entry.path())).collect()
}

/// The record in a sandbox's directory, unless it is missing, unreadable or names another directory.
fn read_record(dir: &Path) -> Option<SandboxRecord> {
    let path = dir.join("record.json");
    if fs::metadata(&path).ok()?.len() > MAX_RECORD {
        return None;
    }
    let record: SandboxRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.dir == dir).then_some(record)
}

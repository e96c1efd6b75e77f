//! What must be known of a sandbox to remove it: written down before its agent runs, read by whoever comes after a killed node.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_process::cgroup::Cgroup;
use nex_process::jail::KILL_SIGNAL;
use nex_process::{Deadline, ProcessId, Signal};
use serde::{Deserialize, Serialize};

use crate::SandboxId;
use crate::remove::remove_tree;

/// How long a sandbox may take to end itself when it is told to kill what it holds.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(2);

/// A sandbox on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its name.
    pub id: SandboxId,
    /// Its first process; everything in it dies with this one.
    pub leader: ProcessId,
    /// The group that its processes are in, if there are groups on this host.
    pub cgroup: Option<Cgroup>,
    /// Its directory, with everything in it.
    pub dir: PathBuf,
    /// The uid that only it has, if it has one.
    pub uid: Option<u32>,
    /// Whether it sees its own root directory (and so `/artifact`) or the host's paths.
    pub own_root: bool,
}

/// Kills and removes what a record names; what is gone already is fine, so this may be done again.
///
/// Returns whether nothing is left.
pub async fn remove_leftover(record: &SandboxRecord, by: Deadline) -> bool {
    let mut clean = true;
    // The first process takes the others along and reaps them, if it still can.
    if let Ok(true) = record.leader.signal(KILL_SIGNAL) {
        let _deaf = record.leader.wait_gone(by.within(KILL_WAIT)).await;
    }
    if let Err(error) = record.leader.kill_and_wait(by).await {
        tracing::warn!(sandbox_id = %record.id, pid = record.leader.pid, %error, "process of a sandbox is still there");
        clean = false;
    }
    if let (false, Some(uid)) = (record.own_root, record.uid) {
        clean &= kill_user(uid, by).await;
    }
    if let Some(cgroup) = &record.cgroup
        && let Err(error) = cgroup.destroy(by).await
    {
        tracing::warn!(sandbox_id = %record.id, %error, "cgroup of a sandbox is still there");
        clean = false;
    }
    if let Err(error) = remove_dir(&record.dir, by).await {
        tracing::warn!(sandbox_id = %record.id, path = %record.dir.display(), %error, "directory of a sandbox is still there");
        clean = false;
    }
    clean
}

/// Without a pid namespace an agent's descendants outlive it, but nobody else has its uid.
async fn kill_user(uid: u32, by: Deadline) -> bool {
    loop {
        let found = ProcessId::all_of_user(uid);
        if !found.iter().any(|(id, _)| id.is_alive()) {
            return true;
        }
        for (id, _) in found {
            let _gone = id.signal(Signal::SIGKILL);
        }
        if by.is_past() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Removes the directory. Where no cgroup told that all are dead, one that is just dying may still put a file there.
async fn remove_dir(dir: &Path, by: Deadline) -> io::Result<()> {
    loop {
        let tree = dir.to_owned();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&tree)).await.unwrap_or_else(|stopped| Err(stopped.into()));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && !by.is_past() => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            removed => return removed,
        }
    }
}

//! The record of a sandbox: written before its agent runs, read to remove the sandbox after its node was killed.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nex_process::cgroup::Cgroup;
use nex_process::jail::KILL_SIGNAL;
use nex_process::{Deadline, Exit, ProcessId, Rung, Signal};
use nex_vmm::VmmKind;
use serde::{Deserialize, Serialize};

use crate::id::SandboxId;
use crate::tree::remove_tree;

/// How long a sandbox may take to end itself when it is told to kill what it holds.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// How long the removal of a dropped sandbox may take.
pub(crate) const REMOVAL: Duration = Duration::from_secs(10);

/// Tells a sandbox to kill what it holds.
pub(crate) const KILL: Rung = Rung::Signal(KILL_SIGNAL, KILL_WAIT);
const PAUSE: Duration = Duration::from_millis(2);
const NOW_ROUNDS: u32 = 250;

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
    /// What runs its machine, if it is one.
    #[serde(default)]
    pub monitor: Option<VmmKind>,
    /// A machine's network.
    pub network: Option<nex_network::Attachment>,
    /// What connects the network namespace of a process, if it has one of its own.
    #[serde(default)]
    pub veth: Option<nex_network::Attachment>,
    /// Whether it sees its own root directory (and so `/artifact`) or the host's paths.
    pub own_root: bool,
}

/// Kills and removes what a record names; what is gone already is fine, so this may be done again.
///
/// Returns whether nothing is left.
pub async fn remove_leftover(record: &SandboxRecord, by: Deadline) -> bool {
    // The first process kills and reaps the others, if it still can.
    if let Ok(true) = record.leader.signal(KILL_SIGNAL) {
        let _late = record.leader.wait_gone(by.within(KILL_WAIT)).await;
    }
    let _late = record.leader.kill_and_wait(by).await;
    // Whoever holds it has its exit by now; what an earlier program of this process started has no holder.
    let _exit = Exit::reap(record.leader);
    loop {
        let copy = record.clone();
        let attempt = tokio::task::spawn_blocking(move || attempt(&copy)).await;
        match attempt.unwrap_or_else(|stopped| Err(Box::new(stopped))) {
            Ok(()) => return true,
            Err(error) if by.is_past() || is_final(&*error) => {
                tracing::warn!(sandbox_id = %record.id, error, "something of a sandbox is still there");
                return false;
            }
            // A killed process may still write a file until it is gone.
            Err(_busy) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Does the same without awaiting, for a destructor when the runtime ends or is gone. Gives up soon.
#[expect(clippy::disallowed_methods, reason = "a destructor cannot await, and this is the last chance to remove the sandbox")]
pub(crate) fn remove_now(record: &SandboxRecord) {
    let _gone = record.leader.signal(KILL_SIGNAL);
    for round in 0..NOW_ROUNDS {
        match attempt(record) {
            Ok(()) => return,
            Err(error) if is_final(&*error) => break,
            Err(_busy) => {}
        }
        if round == NOW_ROUNDS / 2 {
            let _gone = record.leader.signal(Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::warn!(sandbox_id = %record.id, "something of a sandbox is still there, the next sweep removes it");
}

/// Whether another round would change nothing: nobody is alive, and the disk is read-only.
fn is_final(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// One round: everything that is alive is killed, everything that is empty is removed.
fn attempt(record: &SandboxRecord) -> Result<(), Box<dyn Error + Send + Sync>> {
    if record.leader.is_alive() {
        return Err("its first process is alive".into());
    }
    if let (false, Some(uid)) = (record.own_root, record.uid) {
        // Without a pid namespace an agent's descendants outlive it, but only they have its uid.
        let alive: Vec<_> = ProcessId::all_of_user(uid).into_iter().filter(|(id, _)| id.is_alive()).collect();
        for (id, _) in &alive {
            let _gone = id.signal(Signal::SIGKILL);
        }
        if !alive.is_empty() {
            return Err("its processes are alive".into());
        }
    }
    if let Some(cgroup) = &record.cgroup {
        cgroup.kill_all();
        cgroup.remove()?;
    }
    Ok(remove_tree(&record.dir)?)
}

//! After a crash: what the last process of this node left running is found in the journal and removed.

use std::time::Duration;

use nex_process::Deadline;
use nex_protocol::id::WorkloadId;

use crate::journal::{Journal, JournalError, WorkloadRecord};
use crate::sandbox::Sandboxes;

/// Time a leftover process has to die after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// Removes processes, cgroups and directories of the last process; gives back the workloads it had, to be started again.
///
/// # Errors
/// [`JournalError`].
pub async fn remove(journal: &Journal, sandboxes: &Sandboxes) -> Result<Vec<(WorkloadId, WorkloadRecord)>, JournalError> {
    let left = journal.leftovers()?;
    let removed = sandboxes.sweep().await;
    if removed > 0 || !left.children.is_empty() {
        let (processes, workloads) = (left.children.len(), left.workloads.len());
        tracing::warn!(
            sandboxes = removed,
            processes,
            workloads,
            "the last process of this node did not stop in order; removed what it left"
        );
    }
    for (role, process) in &left.children {
        if process.is_alive() && process.kill_and_wait(Deadline::after(KILL)).await.is_err() {
            tracing::error!(role, %process, "a leftover process does not die");
        }
        journal.remove_child(role)?;
    }
    Ok(left.workloads)
}

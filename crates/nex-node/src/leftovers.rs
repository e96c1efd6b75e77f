//! After a crash: what the last process of this node left running is found in the journal and removed.

use std::time::Duration;

use nex_process::Deadline;
use nex_protocol::id::WorkloadId;

use crate::journal::{Journal, JournalError, WorkloadRecord};

/// Time a leftover process has to die after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// Removes processes, cgroups and directories of the last process; gives back the workloads it had, to be started again.
///
/// # Errors
/// [`JournalError`].
pub async fn remove(journal: &Journal) -> Result<Vec<(WorkloadId, WorkloadRecord)>, JournalError> {
    let left = journal.leftovers()?;
    if !left.sandboxes.is_empty() || !left.children.is_empty() {
        tracing::warn!(
            sandboxes = left.sandboxes.len(),
            processes = left.children.len(),
            workloads = left.workloads.len(),
            "the last process of this node did not stop in order; removing what it left"
        );
    }
    for (id, record) in &left.sandboxes {
        nex_sandbox::remove_leftover(record, Deadline::after(KILL)).await;
        journal.remove_sandbox(id)?;
    }
    for (role, process) in &left.children {
        if process.is_alive() && process.kill_and_wait(Deadline::after(KILL)).await.is_err() {
            tracing::error!(role, %process, "a leftover process does not die");
        }
        journal.remove_child(role)?;
    }
    Ok(left.workloads)
}

//! Removes what belongs to a machine: its network connection, processes, directory and uid.

use std::sync::Arc;

use nex_process::Deadline;
use nex_vmm::Machine;

use super::shared::Shared;
use crate::record::{REMOVAL, SandboxRecord, remove_leftover};
use crate::removal::Removal;

/// Removes everything of a machine that has ended. Returns whether nothing is left.
pub(super) async fn remove(shared: &Shared, record: &SandboxRecord) -> bool {
    let by = Deadline::after(REMOVAL);
    let detached = match &record.network {
        Some(attachment) => shared.network.detach(attachment, by).await,
        None => true,
    };
    let removed = remove_leftover(record, by).await;
    shared.host.uids().free(record.uid);
    detached && removed
}

/// Kills a machine and removes everything of it, in the background.
pub(super) fn remove_later(shared: &Arc<Shared>, record: &SandboxRecord, machine: Box<dyn Machine>) {
    let (owner, link) = (Arc::clone(shared), record.network.clone());
    let end = async move {
        let _exit = machine.kill().await;
        if let Some(link) = link {
            owner.network.detach(&link, Deadline::after(REMOVAL)).await;
        }
    };
    Removal::start(&shared.host, record.clone(), Box::pin(end));
}

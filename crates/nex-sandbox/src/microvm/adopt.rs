//! Takes over a machine that an earlier process of the node made: its monitor by pid and start time, its network by name, its guest by the
//! channel that it opens again.

use std::sync::Arc;

use nex_process::Deadline;
use nex_vmm::LeftMachine;

use super::sandbox::MicroVm;
use super::shared::Shared;
use crate::id::SandboxId;
use crate::record::SandboxRecord;

/// The machine, if its monitor still runs, is of this provider's kind, and its network is one of ours. What is not taken over is the next
/// sweep's.
pub(super) async fn adopt(shared: &Arc<Shared>, id: &SandboxId, by: Deadline) -> Option<MicroVm> {
    let record = left(shared, id)?;
    let link = record.network.as_ref()?;
    match shared.network.adopt(link, by).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(agent_id = %id, "a machine of the last process of this node has lost its network");
            return None;
        }
        Err(error) => {
            tracing::warn!(agent_id = %id, %error, "a machine of the last process of this node cannot be taken over");
            return None;
        }
    }
    let dir = shared.machine_dir(id);
    let machine = shared.vmm.adopt(LeftMachine { id: id.as_str(), dir: &dir, run_as: record.uid, process: record.leader });
    match machine {
        Ok(machine) => {
            shared.host.uids().reserve(record.uid);
            Some(MicroVm::adopted(shared, record, machine))
        }
        Err(error) => {
            tracing::warn!(agent_id = %id, %error, "a machine of the last process of this node cannot be taken over");
            None
        }
    }
}

/// The record of a machine that another process left running under this monitor.
pub(super) fn left(shared: &Shared, id: &SandboxId) -> Option<SandboxRecord> {
    let is_ours = |record: &SandboxRecord| record.monitor == Some(shared.vmm.kind()) && record.leader.is_alive();
    shared.host.record(id).filter(is_ours)
}

//! Takes over a machine that an earlier process of the node made: its monitor by pid and start time, its network by name, its guest by the
//! channel that it opens again.

use std::sync::Arc;

use nex_process::Deadline;
use nex_vmm::LeftMachine;

use super::sandbox::MicroVm;
use super::shared::Shared;
use crate::error::AdoptError;
use crate::id::SandboxId;
use crate::record::SandboxRecord;

/// The machine, if its monitor still runs, is of this provider's kind, and its network is one of ours. What is not taken over is the next
/// sweep's.
pub(super) async fn adopt(shared: &Arc<Shared>, id: &SandboxId, by: Deadline) -> Result<MicroVm, AdoptError> {
    let record = left(shared, id)?;
    let link = record.network.as_ref().ok_or(AdoptError::Cut)?;
    if !shared.network.adopt(link, by).await? {
        return Err(AdoptError::Cut);
    }
    let dir = shared.machine_dir(id);
    let left = LeftMachine { id: id.as_str(), dir: &dir, run_as: record.uid, process: record.leader };
    let machine = shared.vmm.adopt(left)?;
    shared.host.uids().reserve(record.uid);
    Ok(MicroVm::adopted(shared, record, machine))
}

/// The record of a machine that another process left running under this monitor.
pub(super) fn left(shared: &Shared, id: &SandboxId) -> Result<SandboxRecord, AdoptError> {
    let now = Some(shared.vmm.kind());
    let record = shared.host.record(id).ok_or(AdoptError::Unknown)?;
    if record.monitor != now {
        return Err(AdoptError::Another { was: record.monitor, now });
    }
    if record.leader.is_alive() { Ok(record) } else { Err(AdoptError::Ended(record.leader)) }
}

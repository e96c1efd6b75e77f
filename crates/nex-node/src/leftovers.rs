//! After a crash: what the last process of this node left running is found in the journal. Agents that run a workload of the journal are
//! kept for its driver; everything else is removed.

use std::collections::BTreeSet;

use futures::future::join_all;
use nex_protocol::agent::PROTOCOL;
use nex_protocol::id::WorkloadId;
use nex_sandbox::SandboxId;

use crate::journal::{RunningRecord, WorkloadRecord};
use crate::sandbox::Sandboxes;
use crate::status::VERSION;
use crate::workload::launch::LeftRunning;

/// A workload that the last process of this node had accepted.
#[derive(Debug)]
pub(crate) struct Leftover {
    /// Its id.
    pub(crate) id: WorkloadId,
    /// What the journal has of it.
    pub(crate) record: WorkloadRecord,
    /// What still runs of it.
    pub(crate) running: Option<LeftRunning>,
}

/// Takes over the sandboxes in which the journal's workloads run, and removes all others: those of warm agents, of agents that the journal
/// does not know, and of workloads that are over.
pub(crate) async fn take_over(workloads: Vec<(WorkloadId, WorkloadRecord)>, sandboxes: &Sandboxes) -> Vec<Leftover> {
    let left = workloads.into_iter().map(async |(id, record)| {
        let running = match &record.running {
            Some(running) => adopt(running, sandboxes).await,
            None => None,
        };
        Leftover { id, record, running }
    });
    let left = join_all(left).await;
    let keep: BTreeSet<SandboxId> = left.iter().filter_map(|it| Some(it.running.as_ref()?.sandbox.id().clone())).collect();
    let (removed, kept, workloads) = (sandboxes.sweep(&keep).await, keep.len(), left.len());
    if removed > 0 || workloads > 0 {
        tracing::warn!(
            kept,
            removed,
            workloads,
            "the last process of this node did not stop in order; took over the agents it left, or removed them"
        );
    }
    left
}

async fn adopt(running: &RunningRecord, sandboxes: &Sandboxes) -> Option<LeftRunning> {
    let handshake = &running.agent.handshake;
    if handshake.protocol != PROTOCOL || handshake.version != VERSION {
        tracing::info!(agent_id = %running.agent.id, version = handshake.version, "an agent of another version is removed");
        return None;
    }
    let sandbox = sandboxes.adopt(&SandboxId::parse(running.agent.id.as_str()).ok()?).await?;
    Some(LeftRunning { sandbox, running: running.clone() })
}

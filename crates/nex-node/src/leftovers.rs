//! After a crash: what the last process of this node left running is found in the journal. Agents that run a workload of the journal are
//! kept for its driver; everything else is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use nex_protocol::agent::PROTOCOL;
use nex_protocol::claims::Claims;
use nex_protocol::control::{EndedWorkload, ExitCause, LastExit};
use nex_protocol::envelope::chain;
use nex_protocol::id::{NodeId, WorkloadId};
use nex_sandbox::{Sandbox, SandboxId};

use crate::agents::LeftAgent;
use crate::clock;
use crate::events;
use crate::journal::{EndedRecord, Journal, JournalError, RunningRecord, WorkloadRecord};
use crate::sandbox::Sandboxes;
use crate::status::VERSION;
use crate::workload::launched::{LeftHome, LeftRunning};
use crate::workload::outcome::End;

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

/// The sandboxes in which the journal's workloads run.
pub(crate) fn sandboxes(workloads: &[(WorkloadId, WorkloadRecord)]) -> BTreeSet<SandboxId> {
    let agents = workloads.iter().filter_map(|(_, record)| Some(record.running.as_ref()?.agent.id.as_str()));
    agents.filter_map(|agent| SandboxId::parse(agent).ok()).collect()
}

/// Takes over the sandboxes in which the journal's workloads run, and removes all others: those of warm agents, of agents that the journal
/// does not know, and of workloads that are over.
pub(crate) async fn take_over(workloads: Vec<(WorkloadId, WorkloadRecord)>, sandboxes: &Sandboxes) -> Vec<Leftover> {
    let running = workloads.iter().filter_map(|(_, record)| record.running.as_ref());
    let shared: BTreeMap<&str, &RunningRecord> =
        running.filter(|running| running.is_shared).map(|running| (running.agent.id.as_str(), running)).collect();
    let shared = shared.into_iter().map(async |(agent, running)| {
        let sandbox = adopt(running, sandboxes).await?;
        Some((agent.to_owned(), LeftAgent::new(sandbox)))
    });
    let shared: BTreeMap<String, Arc<LeftAgent>> = join_all(shared).await.into_iter().flatten().collect();
    let left = workloads.into_iter().map(async |(id, record)| {
        let home = match &record.running {
            Some(running) if running.is_shared => {
                shared.get(running.agent.id.as_str()).map(|agent| LeftHome::Shared(agent.claim(&running.instance)))
            }
            Some(running) => adopt(running, sandboxes).await.map(LeftHome::Own),
            None => None,
        };
        let running = home.zip(record.running.clone()).map(|(home, running)| LeftRunning { home, running });
        Leftover { id, record, running }
    });
    let left = join_all(left).await;
    let keep: BTreeSet<SandboxId> = left.iter().filter_map(|it| Some(it.running.as_ref()?.home.sandbox_id().clone())).collect();
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

/// Forgets the workloads of the last process: nobody goes on with them, and the world is told so.
///
/// # Errors
/// When the journal does not do it.
pub(crate) async fn forget(
    workloads: Vec<(WorkloadId, WorkloadRecord)>,
    journal: &Journal,
    node: &NodeId,
) -> Result<(), JournalError> {
    for (id, WorkloadRecord { namespace, request, life, .. }) in workloads {
        let claims = request.workload_jwt.as_deref().and_then(|token| Claims::decode(token).ok());
        let (name, issuer, token) = claims.map(|claims| (claims.sub, claims.iss, claims.jti)).unwrap_or_default();
        let end = End { cause: ExitCause::NodeStopped, code: -1, reason: "its node was started afresh".to_owned() };
        tracing::info!(workload_id = %id, name, "a workload of the last process is forgotten");
        let event = events::end_of(node, &namespace, &name, &id, &end);
        let exit = LastExit { code: end.code, reason: end.reason, cause: end.cause, at: clock::unix_seconds() };
        let (id_text, r#type) = (id.to_string(), request.r#type.unwrap_or_default());
        let told = EndedWorkload { id: id_text, name, r#type, issuer, restarts: life.restarts, exit, ..EndedWorkload::default() };
        journal.end_workload(id, event, EndedRecord { namespace, token, told }, true).await?;
    }
    Ok(())
}

async fn adopt(running: &RunningRecord, sandboxes: &Sandboxes) -> Option<Box<dyn Sandbox>> {
    let handshake = &running.agent.handshake;
    if handshake.protocol != PROTOCOL {
        let (protocol, version) = (handshake.protocol, &handshake.version);
        tracing::warn!(agent_id = %running.agent.id, protocol, version, "an agent of another protocol is removed; its workloads are started anew");
        return None;
    }
    if handshake.version != VERSION {
        tracing::info!(agent_id = %running.agent.id, version = handshake.version, "an agent of another version runs on");
    }
    let id = SandboxId::parse(running.agent.id.as_str()).inspect_err(|error| untaken(running, error)).ok()?;
    sandboxes.adopt(&id).await.inspect_err(|error| untaken(running, error)).ok()
}

fn untaken(running: &RunningRecord, why: &dyn std::error::Error) {
    let error = chain(why);
    tracing::warn!(agent_id = %running.agent.id, error, "an agent of the last process is not taken over; its workloads are started anew");
}

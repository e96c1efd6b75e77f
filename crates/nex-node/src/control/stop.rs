//! STOP and LAMEDUCK.

use std::sync::Arc;

use nex_protocol::control::LameDuckResponse;
use nex_protocol::deploy::{StopRequest, StopResponse};
use nex_protocol::envelope::{ErrorCode, Failure};

use super::parse;
use crate::clock;
use crate::policy;
use crate::shared::Shared;

/// Stops a workload on behalf of its issuer; answers when nothing of it is left.
pub(super) async fn stop(shared: &Arc<Shared>, namespace: &str, body: &[u8]) -> Result<StopResponse, Failure> {
    let request: StopRequest = parse("stop", body)?;
    let id = request.workload_id.unwrap_or_default();
    let workload = shared.registry.get(&id).ok_or_else(|| Failure::new(ErrorCode::NotFound, "No such workload"))?;
    let token = request.workload_jwt.unwrap_or_default();
    let (now, place) = (clock::unix_seconds(), shared.place(namespace));
    let claims = policy::may_stop(&token, &workload.spec, place, shared.config.demands, now)?;
    // Claims that name one workload are used up with it. Those of 0.2.7 may be the same for several stops of one second.
    if let Some(until) = claims.exp.filter(|_| claims.nats.workload.is_some()) {
        shared.spend(&claims, "stop", until, now).await?;
    }
    workload.stop("Workload shutdown requested").await;
    let spec = &workload.spec;
    Ok(StopResponse { stopped: true, id: spec.id.to_string(), issuer: spec.claims.iss.clone(), name: spec.name.to_string() })
}

/// Drains the node: no new workloads, no restarts. Repeating it changes nothing.
pub(super) async fn lame_duck(shared: &Arc<Shared>) -> LameDuckResponse {
    if shared.enter_lame_duck() {
        tracing::info!("entering lame duck mode");
        shared.drivers.events.entered_lame_duck();
        for workload in shared.registry.all() {
            workload.lame_duck().await;
        }
    }
    LameDuckResponse { node_id: shared.identity.node.to_string(), success: true }
}

//! STOP and LAMEDUCK.

use std::sync::Arc;

use nex_protocol::control::LameDuckResponse;
use nex_protocol::deploy::{StopRequest, StopResponse};
use nex_protocol::envelope::{ErrorCode, Failure};

use super::{body, token};
use crate::clock;
use crate::config::Demands;
use crate::events::Events;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::policy;
use crate::status::NodeStatus;
use crate::workload::Workloads;

/// Stops workloads, and takes no new ones.
pub(super) struct Stops {
    pub(super) identity: Arc<Identity>,
    pub(super) demands: Demands,
    pub(super) status: Arc<NodeStatus>,
    pub(super) registry: Workloads,
    pub(super) journal: Journal,
    pub(super) events: Events,
}

impl Stops {
    /// Stops a workload on behalf of its issuer; answers when nothing of it is left.
    pub(super) async fn stop(&self, namespace: &str, body: &[u8]) -> Result<StopResponse, Failure> {
        let request: StopRequest = body::parse("stop", body)?;
        let id = request.workload_id.unwrap_or_default();
        let workload = self.registry.get(&id).ok_or_else(|| Failure::new(ErrorCode::NotFound, "No such workload"))?;
        let token = request.workload_jwt.unwrap_or_default();
        let (now, place) = (clock::unix_seconds(), self.identity.place(namespace));
        let claims = policy::may_stop(&token, &workload.spec, place, self.demands, now)?;
        // Claims that name one workload are used up with it. Those of 0.2.7 may be the same for several stops of one second.
        if let Some(until) = claims.exp.filter(|_| claims.nats.workload.is_some()) {
            token::spend(&self.journal, &claims, "stop", until, now).await?;
        }
        workload.stop("Workload shutdown requested").await;
        let spec = &workload.spec;
        Ok(StopResponse { stopped: true, id: spec.id.to_string(), issuer: spec.claims.iss.clone(), name: spec.name.to_string() })
    }

    /// Drains the node: no new workloads, no restarts. Repeating it changes nothing.
    pub(super) async fn lame_duck(&self) -> LameDuckResponse {
        if self.status.enter_lame_duck() {
            tracing::info!("entering lame duck mode");
            self.events.entered_lame_duck();
            for workload in self.registry.all() {
                workload.lame_duck().await;
            }
        }
        LameDuckResponse { node_id: self.identity.node.to_string(), success: true }
    }
}

//! STOP and LAMEDUCK.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_protocol::control::{LameDuckRequest, LameDuckResponse};
use nex_protocol::deploy::{StopRequest, StopResponse};
use nex_protocol::envelope::{ErrorCode, Failure};

use super::{body, token};
use crate::admission::Admission;
use crate::clock;
use crate::config::LiveConfig;
use crate::events::Events;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::policy;
use crate::status::NodeStatus;
use crate::workload::Workloads;

/// Longest time a node drains.
const MAX_DRAIN: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Stops workloads, and takes no new ones.
pub(super) struct Stops {
    pub(super) identity: Arc<Identity>,
    pub(super) config: LiveConfig,
    pub(super) status: Arc<NodeStatus>,
    pub(super) registry: Workloads,
    pub(super) journal: Journal,
    pub(super) events: Events,
    pub(super) admission: Arc<Admission>,
}

impl Stops {
    /// Stops a workload on behalf of its issuer, or of an operator of this node; answers when nothing of it is left.
    pub(super) async fn stop(&self, namespace: &str, body: &[u8]) -> Result<StopResponse, Failure> {
        let request: StopRequest = body::parse("stop", body)?;
        let id = request.workload_id.unwrap_or_default();
        let workload = self.registry.get(&id).ok_or_else(|| Failure::new(ErrorCode::NotFound, "No such workload"))?;
        let token = request.workload_jwt.unwrap_or_default();
        let (now, place) = (clock::unix_seconds(), self.identity.place(namespace));
        let config = self.admission.config_with_issuers().await.unwrap_or_else(|_told| self.config.now());
        let claims = policy::may_stop(&token, &workload.spec, place, &config, now)?;
        // Claims that name one workload are used up with it. Those of 0.2.7 may be the same for several stops of one second.
        if let Some(until) = claims.exp.filter(|_| claims.nats.workload.is_some()) {
            token::spend_on_stop(&self.journal, &claims, until, now).await?;
        }
        match claims.iss == workload.spec.claims.iss {
            true => workload.stop("Workload shutdown requested").await,
            false => {
                tracing::warn!(workload_id = %id, name = %workload.spec.name, operator = claims.iss, "an operator stops a workload");
                self.events.stopped_by_operator(&workload.spec, &claims.iss);
                let reason = format!("stopped by the operator {}", claims.iss);
                workload.stop(&reason).await;
            }
        }
        Box::pin(self.admission.retire(&workload.spec)).await;
        let spec = &workload.spec;
        Ok(StopResponse { stopped: true, id: spec.id.to_string(), issuer: spec.claims.iss.clone(), name: spec.name.to_string() })
    }

    /// Drains the node: no new workloads, no restarts, and at the deadline, if there is one, nothing runs any more. Repeating it changes
    /// the deadline at most.
    pub(super) async fn lame_duck(&self, body: &[u8]) -> LameDuckResponse {
        // An empty or unreadable body sets no deadline, as in 0.2.7.
        let request: LameDuckRequest = serde_json::from_slice(body).unwrap_or_default();
        let deadline = request.deadline_ms.map(Duration::from_millis).map(|time| time.min(MAX_DRAIN));
        if self.status.enter_lame_duck(deadline.map(|time| Instant::now() + time)) {
            tracing::info!("entering lame duck mode");
            self.events.entered_lame_duck();
            for workload in self.registry.all() {
                workload.lame_duck().await;
            }
        }
        LameDuckResponse { node_id: self.identity.node.to_string(), success: true }
    }
}

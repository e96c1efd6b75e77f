//! DEPLOY: checks, artifact, start; then the reply. The workload is in the journal before its deployer hears of it.

use std::sync::Arc;

use nex_process::Deadline;
use nex_protocol::deploy::{DeployRequest, DeployResponse};
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::Namespace;

use super::parse;
use crate::admission::{self, AdmittedDeploy};
use crate::clock;
use crate::policy;
use crate::shared::Shared;

/// Deploys a workload into a namespace.
pub(super) async fn deploy(shared: &Arc<Shared>, namespace: &str, body: &[u8]) -> Result<DeployResponse, Failure> {
    if shared.is_lame_duck() {
        return Err(Failure::new(ErrorCode::Unavailable, "Node is in lame duck mode. Workload deploy request denied"));
    }
    let by = Deadline::after(shared.drivers.timeouts.deploy);
    let reservation = shared.registry.reserve()?;
    let request: DeployRequest = parse("deploy", body)?;
    let namespace: Namespace =
        namespace.parse().map_err(|error| Failure::new(ErrorCode::BadRequest, format!("Invalid deploy request: {error}")))?;
    let now = clock::unix_seconds();
    let admitted = policy::admit(&request, &shared.config, &shared.identity.xkey, now)?;
    let spent = shared.drivers.journal.spend_token(&admitted.claims.jti, admitted.spent_until, now);
    if !spent.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))? {
        return Err(Failure::new(
            ErrorCode::Denied,
            "Invalid deploy request: this workload JWT was used before; sign a new one for each deploy",
        ));
    }
    // Boxed: a deploy's future is large, and one of many requests.
    let deploy = AdmittedDeploy { namespace, request, admitted, reservation };
    let answer = Box::pin(admission::deploy(shared, deploy, by)).await?;
    Ok(answer)
}

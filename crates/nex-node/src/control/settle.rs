//! Whether a workload that was started stays: watched as long as its deployer asks for, so that one that ends at once is a deploy that
//! failed, with its last lines.

use std::time::Duration;

use nex_protocol::deploy::{DeployRequest, DeployResponse, Restart};
use nex_protocol::envelope::{ErrorCode, Failure};

use crate::admission::Started;

/// Longest time it is watched, whatever is asked for.
const MAX_SETTLE: Duration = Duration::from_secs(60);
/// How long that is, for a request.
pub(super) fn longest(request: &DeployRequest) -> Duration {
    request.settle_ms.map_or(Duration::ZERO, Duration::from_millis).min(MAX_SETTLE)
}

/// Waits until the workload has run so long, or has ended: well, or not.
pub(super) async fn settle(started: Started, time: Duration) -> Result<DeployResponse, Failure> {
    let Started { workload, response, .. } = started;
    let Some(end) = workload.ends_within(time).await else { return Ok(response) };
    if end.code == 0 && workload.spec.rules().restart != Restart::Always {
        return Ok(DeployResponse { exit_code: Some(0), ..response });
    }
    // It may be about to be started again.
    workload.stop("it ended right after its start").await;
    let text = format!("Failed to deploy workload: {} {} ms after its start", end.how(), end.ran.as_millis());
    let text = text + &workload.tail.final_text();
    Err(Failure::new(ErrorCode::Failed, text))
}

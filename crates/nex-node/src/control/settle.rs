//! Whether a workload that was started stays: watched as long as its deployer asks for, so that one that ends at once is a deploy that
//! failed, with its last lines.

use std::fmt::Write as _;
use std::time::Duration;

use nex_protocol::deploy::DeployResponse;
use nex_protocol::envelope::{ErrorCode, Failure};

use crate::admission::Started;

/// Longest time it is watched, whatever is asked for.
const MAX_SETTLE: Duration = Duration::from_secs(60);
/// Last lines told, and characters of each.
const LINES: usize = 10;
const CHARACTERS: usize = 200;

/// The beginning of a line as it can be shown on any terminal.
fn printable(text: &str) -> String {
    text.chars().take(CHARACTERS).map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Waits until the workload has run so long, or has ended: well, or not.
pub(super) async fn settle(started: Started, milliseconds: u64) -> Result<DeployResponse, Failure> {
    let Started { workload, response } = started;
    let Some(end) = workload.ends_within(Duration::from_millis(milliseconds).min(MAX_SETTLE)).await else { return Ok(response) };
    if end.code == 0 {
        return Ok(DeployResponse { exit_code: Some(0), ..response });
    }
    // It may be about to be started again.
    workload.stop("it ended right after its start").await;
    let mut text = format!("Failed to deploy workload: {} {} ms after its start", end.how(), end.ran.as_millis());
    let last = workload.tail.final_lines(LINES);
    text.push_str(if last.is_empty() { "; it wrote nothing" } else { "; its last lines:" });
    for line in last {
        write!(text, "\n  {}", printable(&line.text)).ok();
    }
    Err(Failure::new(ErrorCode::Failed, text))
}

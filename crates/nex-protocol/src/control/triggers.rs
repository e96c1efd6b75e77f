//! What a node says of a workload's triggers.

use serde::{Deserialize, Serialize};

/// A trigger that keeps its messages, as a node that serves it sees it (new).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TriggerSummary {
    /// The trigger, as it was written.
    pub trigger: String,
    /// `starting`, `active`, or `failing`: it cannot be served now, and is tried again.
    pub state: String,
    /// The stream it reads.
    pub stream: String,
    /// Its consumer there.
    pub consumer: String,
    /// Messages that are delivered to nobody yet, on all nodes together.
    pub waiting: u64,
    /// Messages delivered and not dealt with, on all nodes together; those that wait for their next attempt among them.
    pub unacknowledged: u64,
    /// Messages in this copy's hands that wait for others of their key.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_back: u64,
    /// Messages that this copy has dealt with.
    pub done: u64,
    /// Attempts of this copy that failed and are made again.
    pub retried: u64,
    /// Messages that this copy gave up.
    pub dead: u64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl TriggerSummary {
    /// Messages that are not dealt with, on all nodes together.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.waiting.saturating_add(self.unacknowledged)
    }
}

//! HISTORY: log lines and events that a node has kept, a page at a time (new; nodes of 0.2.7 keep none).
//!
//! What is kept here is stored in this form as well.

use serde::{Deserialize, Serialize};

use crate::event::{CloudEvent, kind};
use crate::log::Level;

/// Which of what a node has kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryRequest {
    /// Only what comes after this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only what comes up to this number; the node's newest if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Only what was written from this time on, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Only the last ones, so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Only of workloads with this id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Only lines of this level and more serious ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

/// A page of what a node has kept of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryResponse {
    /// Public key of the node.
    pub node_id: String,
    /// Log lines, where those were asked for, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<HistoryLine>,
    /// Events, where those were asked for, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<HistoryEvent>,
    /// The number up to which it was looked when the first page was asked for: `until` of the next ones.
    pub until: u64,
    /// `after` of the next page, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Records that could not be read and were passed over.
    #[serde(skip_serializing_if = "is_zero")]
    pub damaged: u64,
    /// Whether there may be older ones that a search for the last ones has not looked through.
    #[serde(rename = "cut", skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A log line that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Its number: they grow on a node, across its processes.
    pub seq: u64,
    /// When it was written, ms since 1970.
    pub at_ms: i64,
    /// Workload id; empty where it is the node that says something.
    pub id: String,
    /// Name of the workload.
    pub name: String,
    /// How serious.
    pub level: Level,
    /// The line.
    pub text: String,
}

/// An event that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Its number: they grow on a node, across its processes.
    pub seq: u64,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// The event as it was told.
    pub event: CloudEvent,
}

/// How much a node keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistorySummary {
    /// Bytes on its disk.
    pub bytes: u64,
    /// Most bytes.
    pub max_bytes: u64,
    /// Records that its disk did not take since the node began.
    pub lost: u64,
}

/// What is kept of a workload and asked for by it.
pub trait HistoryRecord {
    /// Its number.
    fn seq(&self) -> u64;
    /// When, ms since 1970.
    fn at_ms(&self) -> i64;
    /// Whether it is of a workload with this id or name.
    fn is_of(&self, workload: &str) -> bool;
    /// Its level, if it has one.
    fn level(&self) -> Option<Level>;
}

impl HistoryRequest {
    /// Whether a record is asked for.
    #[must_use]
    pub fn wants(&self, record: &impl HistoryRecord) -> bool {
        self.after.is_none_or(|after| record.seq() > after)
            && self.until.is_none_or(|until| record.seq() <= until)
            && self.since_ms.is_none_or(|since| record.at_ms() >= since)
            && self.workload.as_deref().is_none_or(|workload| record.is_of(workload))
            && self.level.is_none_or(|least| record.level().is_none_or(|level| level >= least))
    }
}

impl HistoryRecord for HistoryLine {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn at_ms(&self) -> i64 {
        self.at_ms
    }

    fn is_of(&self, workload: &str) -> bool {
        // What the node itself remarks is for everybody.
        self.id.is_empty() || self.id == workload || self.name.eq_ignore_ascii_case(workload)
    }

    fn level(&self) -> Option<Level> {
        Some(self.level)
    }
}

impl HistoryRecord for HistoryEvent {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn at_ms(&self) -> i64 {
        self.at_ms
    }

    fn is_of(&self, workload: &str) -> bool {
        let member = |name: &str| self.event.data.get(name).and_then(serde_json::Value::as_str);
        self.event.r#type == kind::HISTORY_LOST
            || member("workload_id") == Some(workload)
            || member("workload_name").is_some_and(|name| name.eq_ignore_ascii_case(workload))
    }

    fn level(&self) -> Option<Level> {
        None
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_wants_what_passes_all_that_it_says() {
        let line =
            HistoryLine { seq: 7, at_ms: 1_000, id: "w1".into(), name: "Echo".into(), level: Level::Warn, text: "hi".into() };
        let all = HistoryRequest::default();
        assert!(all.wants(&line));
        for request in [
            HistoryRequest { after: Some(6), until: Some(7), ..all.clone() },
            HistoryRequest { since_ms: Some(1_000), ..all.clone() },
            HistoryRequest { workload: Some("w1".into()), level: Some(Level::Warn), ..all.clone() },
            HistoryRequest { workload: Some("echo".into()), ..all.clone() },
        ] {
            assert!(request.wants(&line), "{request:?}");
        }
        for request in [
            HistoryRequest { after: Some(7), ..all.clone() },
            HistoryRequest { until: Some(6), ..all.clone() },
            HistoryRequest { since_ms: Some(1_001), ..all.clone() },
            HistoryRequest { workload: Some("w".into()), ..all.clone() },
            HistoryRequest { level: Some(Level::Error), ..all.clone() },
        ] {
            assert!(!request.wants(&line), "{request:?}");
        }
        let data = json!({"workload_id": "w1", "workload_name": "echo"});
        let event = CloudEvent::new("workload_deployed", "N1".into(), "2026-02-03T15:04:05Z".into(), data);
        let event = HistoryEvent { seq: 1, at_ms: 1, event };
        assert!(event.is_of("w1") && event.is_of("ECHO") && !event.is_of("other"));
        assert!(HistoryRequest { level: Some(Level::Error), ..all }.wants(&event), "events have no level");
    }
}

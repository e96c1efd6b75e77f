//! Lifecycle events: CloudEvents 1.0 in structured JSON, types and fields as 0.2.7 names them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Namespace token of events about nodes.
pub const SYSTEM: &str = "system";

/// Event types.
pub mod kind {
    /// A node is ready.
    pub const NODE_STARTED: &str = "node_started";
    /// A node has stopped.
    pub const NODE_STOPPED: &str = "node_stopped";
    /// A node drains.
    pub const NODE_ENTERED_LAMEDUCK: &str = "node_entered_lameduck";
    /// A node lives; every 30 s.
    pub const HEARTBEAT: &str = "heartbeat";
    /// An agent shook hands.
    pub const AGENT_STARTED: &str = "agent_started";
    /// An agent is gone.
    pub const AGENT_STOPPED: &str = "agent_stopped";
    /// A workload runs.
    pub const WORKLOAD_DEPLOYED: &str = "workload_deployed";
    /// A workload is gone; exactly one for every `workload_deployed`.
    pub const WORKLOAD_UNDEPLOYED: &str = "workload_undeployed";
    /// A workload's health check fails: it is ended, and started again if it may (new).
    pub const WORKLOAD_UNHEALTHY: &str = "workload_unhealthy";
    /// An instance of a workload was started: for the first time, or again (new).
    pub const WORKLOAD_STARTED: &str = "workload_started";
    /// A workload has ended and is started again after a pause (new).
    pub const WORKLOAD_RESTARTING: &str = "workload_restarting";
    /// A node has lost some of what it was to keep (new); it is in the history only.
    pub const HISTORY_LOST: &str = "history_lost";
    /// A node's journal was damaged, and begins again with what could be read of it (new).
    pub const JOURNAL_DAMAGED: &str = "journal_damaged";
    /// An operator of the node stops what somebody else has started (new).
    pub const WORKLOAD_STOPPED_BY_OPERATOR: &str = "workload_stopped_by_operator";
    /// Calls of a function ended well.
    pub const FUNCTION_EXEC_SUCCEEDED: &str = "function_exec_succeeded";
    /// A call of a function failed.
    pub const FUNCTION_EXEC_FAILED: &str = "function_exec_failed";
}

/// One event. Shape: `{"specversion":"1.0","id":…,"source":…,"type":…,"time":…,"datacontenttype":"application/json","data":{…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique.
    pub id: String,
    /// The node, or `<node>-<workload>`.
    pub source: String,
    /// One of [`kind`].
    pub r#type: String,
    /// RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// Extension: the namespace the event belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What happened.
    #[serde(default)]
    pub data: Value,
}

impl CloudEvent {
    /// An event of a source; `time` is RFC 3339.
    #[must_use]
    pub fn new(kind: &str, source: String, time: String, data: Value) -> Self {
        Self {
            specversion: "1.0".into(),
            id: uuid_v4(),
            source,
            r#type: kind.into(),
            time: Some(time),
            datacontenttype: Some("application/json".into()),
            namespace: None,
            data,
        }
    }
}

fn uuid_v4() -> String {
    let bits: u128 = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_a_random_uuid() {
        let id = uuid_v4();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}

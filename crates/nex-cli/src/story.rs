//! What has happened to a workload, as nodes have kept it: starts, restarts and ends with the last lines before them.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nex_protocol::control::{HistoryEvent, HistoryLine, HistoryRequest};
use nex_protocol::event::{CloudEvent, kind};
use nex_protocol::id::NodeId;
use serde_json::Value;

use crate::kept;
use crate::output::Output;
use crate::session::Session;
use crate::style::harmless;

/// Most happenings that are shown of one workload.
const SHOWN: usize = 20;
/// Ends whose last lines are shown, and how many of those.
const ENDS: usize = 3;
const LINES: usize = 3;
/// Most workloads of a name that are told apart where none of them runs or has ended lately.
const IDS: usize = 3;

/// All that is kept of the workloads of a name or id.
#[derive(Debug)]
pub(crate) struct Story {
    events: Vec<(NodeId, HistoryEvent)>,
}

impl Story {
    /// Asks the nodes.
    pub(crate) async fn read(workload: &str, session: &Session) -> anyhow::Result<Self> {
        let nodes = kept::nodes(session).await?;
        let request = HistoryRequest { workload: Some(workload.to_owned()), ..HistoryRequest::default() };
        let namespace = session.client.namespace().as_str();
        let mut history = session.client.kept::<HistoryEvent>(&nodes, &[namespace], &request).await;
        let mut seen = HashSet::new();
        let mut events = history.rest().await;
        // One that a killed node had not told yet may have been kept twice.
        events.retain(|(_, it)| workload_of(&it.event).is_some() && seen.insert(it.event.id.clone()));
        Ok(Self { events })
    }

    /// The last workloads that it tells of.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for id in self.events.iter().rev().filter_map(|(_, it)| workload_of(&it.event)) {
            if ids.len() < IDS && !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
        ids.reverse();
        ids
    }

    /// What happened to one of them.
    pub(crate) fn of(&self, id: &str) -> Vec<&CloudEvent> {
        self.events.iter().map(|(_, it)| &it.event).filter(|event| workload_of(event) == Some(id)).collect()
    }

    /// Prints what happened to one of them, with what it said before it ended.
    pub(crate) async fn print(&self, id: &str, session: &Session, output: &mut Output) -> anyhow::Result<()> {
        let own: Vec<_> = self.events.iter().filter(|(_, it)| workload_of(&it.event) == Some(id)).collect();
        if own.is_empty() {
            return Ok(());
        }
        output.line("What happened:")?;
        if let Some(left_out) = own.len().checked_sub(SHOWN).filter(|count| *count > 0) {
            output.line(format_args!("  ({left_out} earlier ones: nex{} describe {id} --json)", session.repeated))?;
        }
        let ends = own.iter().filter(|(_, it)| is_end(&it.event)).count();
        let (mut ended, mut began) = (0, None);
        for (index, (node, it)) in own.iter().enumerate() {
            if index + SHOWN >= own.len() {
                output.line(format_args!("  {}  {}", when(it.at_ms), harmless(&what(&it.event))))?;
            }
            if it.event.r#type == kind::WORKLOAD_STARTED {
                began = Some(it.seq);
            }
            if !is_end(&it.event) {
                continue;
            }
            ended += 1;
            if ended + ENDS > ends && index + SHOWN >= own.len() {
                let request = HistoryRequest {
                    workload: Some(id.to_owned()),
                    after: began,
                    until: Some(it.seq),
                    tail: Some(LINES),
                    ..HistoryRequest::default()
                };
                for line in last_lines(node, &request, session).await {
                    output.line(format_args!("      {}", harmless(line.text.trim_end())))?;
                }
            }
        }
        Ok(())
    }
}

/// The lines before an end; none where they cannot be had, which the permissions of who asks may be the reason for.
async fn last_lines(node: &NodeId, request: &HistoryRequest, session: &Session) -> Vec<HistoryLine> {
    let namespace = session.client.namespace().as_str();
    let mut lines = session.client.kept::<HistoryLine>(std::slice::from_ref(node), &[namespace], request).await;
    lines.rest().await.into_iter().map(|(_, line)| line).filter(|line| !line.id.is_empty()).collect()
}

fn workload_of(event: &CloudEvent) -> Option<&str> {
    event.data.get("workload_id").and_then(Value::as_str)
}

fn is_end(event: &CloudEvent) -> bool {
    event.r#type == kind::WORKLOAD_RESTARTING || event.r#type == kind::WORKLOAD_UNDEPLOYED
}

fn when(at_ms: i64) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(TimeZone::system());
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// One line about an event.
fn what(event: &CloudEvent) -> String {
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default().trim_end().to_owned();
    let number = |name: &str| event.data.get(name).and_then(Value::as_i64).unwrap_or_default();
    let end = || format!("cause {}, exit code {}: {}", text("cause"), number("code"), text("reason"));
    match event.r#type.as_str() {
        kind::WORKLOAD_STARTED if number("restarts") > 0 => format!("started again, for the {}. time", number("restarts")),
        kind::WORKLOAD_STARTED => "started".to_owned(),
        kind::WORKLOAD_DEPLOYED => "deployed".to_owned(),
        kind::WORKLOAD_UNHEALTHY => format!("unhealthy: {}", text("reason")),
        kind::WORKLOAD_RESTARTING => {
            format!("ended; {}; to be started again in {}", end(), kept::pause(number("pause_ms").unsigned_abs()))
        }
        kind::WORKLOAD_UNDEPLOYED => format!("gone; {}", end()),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, data: Value) -> CloudEvent {
        CloudEvent::new(kind, "N1".into(), "2026-02-03T15:04:05Z".into(), data)
    }

    #[test]
    fn an_event_is_told_in_a_line() {
        let end = json!({"cause": "exit", "code": 7, "reason": "Exited", "pause_ms": 500});
        assert_eq!(
            what(&event(kind::WORKLOAD_RESTARTING, end.clone())),
            "ended; cause exit, exit code 7: Exited; to be started again in 500ms"
        );
        assert_eq!(what(&event(kind::WORKLOAD_UNDEPLOYED, end)), "gone; cause exit, exit code 7: Exited");
        assert_eq!(what(&event(kind::WORKLOAD_STARTED, json!({"restarts": 2}))), "started again, for the 2. time");
        assert_eq!(what(&event("other", json!({}))), "other");
    }

    #[test]
    fn workloads_of_one_name_are_told_apart_the_last_ones_first_in_line() {
        let node: NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        let of = |seq, id: &str| {
            let event = event(kind::WORKLOAD_STARTED, json!({"workload_id": id}));
            (node.clone(), HistoryEvent { seq, at_ms: 0, event })
        };
        let story = Story { events: vec![of(1, "a"), of(2, "b"), of(3, "b"), of(4, "c"), of(5, "d")] };
        assert_eq!(story.ids(), ["b", "c", "d"]);
        assert_eq!(story.of("b").len(), 2);
    }
}

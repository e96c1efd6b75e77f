//! `nex ps`: the workloads of the namespace on all nodes.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use nex_client::discover::{Ended, Found, Running};
use nex_protocol::control::{WorkloadPingRequest, uptime};
use serde_json::{Value, json};

use crate::output::Output;
use crate::session::Session;
use crate::style::Style;
use crate::table::{Column, Grid, titled};

/// `nex ps`
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only the workloads with this id or name
    #[arg(value_name = "ID|NAME")]
    workload: Option<String>,
    /// Also those that have ended lately, as far as their nodes remember: exit code, when, last line
    #[arg(long, short)]
    all: bool,
}

/// Requests and prints the list.
pub(crate) async fn run(args: &PsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().map(super::stop::workload_token).transpose()?;
    let more = WorkloadPingRequest { ended: true, tail: None };
    let Found { mut running, mut ended } = session.client.find(wanted, &more, session.discovery_timeout).await?;
    ended.sort_by_key(|ended| ended.workload.exit.at);
    running.sort_by(|a, b| (&a.workload.name, &a.workload.id).cmp(&(&b.workload.name, &b.workload.id)));
    if output.is_json() {
        let ended = if args.all { ended_as_json(&ended) } else { Vec::new() };
        return output.document(&[as_json(&running), ended].concat());
    }
    if running.is_empty() && (ended.is_empty() || !args.all) {
        let hint = match ended.len() {
            0 => format!("Run something: nex{} devrun <file>", session.repeated),
            count => format!(
                "{count} ended lately: nex{} ps --all{}",
                session.repeated,
                wanted.map(|name| format!(" {name}")).unwrap_or_default()
            ),
        };
        output.note(output.style().dim(&hint));
        return output.line(format_args!("No workloads in namespace {}", session.client.namespace()));
    }
    if !running.is_empty() {
        output.table(&table(&running))?;
    }
    if args.all && !ended.is_empty() {
        output.table(&ended_table(&ended, Timestamp::now()))?;
    }
    Ok(())
}

fn ended_as_json(ended: &[Ended]) -> Vec<Value> {
    let one = |Ended { node, node_name, workload }: &Ended| {
        let mut object = json!({ "node_id": node, "node_name": node_name, "state": "ended" });
        if let (Some(object), Ok(Value::Object(members))) = (object.as_object_mut(), serde_json::to_value(workload)) {
            object.extend(members);
        }
        object
    };
    ended.iter().map(one).collect()
}

fn ended_table(ended: &[Ended], now: Timestamp) -> Grid {
    let columns = [
        Column::left("ID").whole(),
        Column::left("Name"),
        Column::right("Exit"),
        Column::right("Ended"),
        Column::right("Restarts").optional(),
        Column::left("Last line"),
    ];
    let row = |Ended { workload, .. }: &Ended| {
        let line = workload.last_line.clone().unwrap_or_default();
        vec![
            workload.id.clone(),
            workload.name.clone(),
            workload.exit.code.to_string(),
            format!("{} ago", ago(workload.exit.at, now)),
            workload.restarts.to_string(),
            line,
        ]
    };
    titled("Ended lately", &columns, ended.iter().map(row))
}

/// How long ago that was, by this host's clock.
pub(crate) fn ago(at: i64, now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second().saturating_sub(at)).unwrap_or(0);
    uptime(Duration::from_secs(seconds))
}

/// Workloads with their nodes as JSON.
pub(crate) fn as_json(running: &[Running]) -> Vec<Value> {
    let one = |Running { node, node_name, workload }: &Running| {
        let mut object = json!({ "node_id": node, "node_name": node_name });
        if let (Some(object), Ok(Value::Object(members))) = (object.as_object_mut(), serde_json::to_value(workload)) {
            object.extend(members);
        }
        object
    };
    running.iter().map(one).collect()
}

fn table(running: &[Running]) -> Grid {
    let columns = [
        Column::left("ID").whole(),
        Column::left("Name"),
        Column::left("Type").whole(),
        Column::left("State").whole(),
        Column::right("Uptime").optional(),
        Column::right("Restarts").optional(),
        Column::left("Triggers"),
        Column::left("Node"),
    ];
    let row = |Running { node, node_name, workload }: &Running| {
        let state = if workload.state.is_empty() { "running" } else { &workload.state };
        vec![
            workload.id.clone(),
            workload.name.clone(),
            workload.r#type.clone(),
            state.to_owned(),
            workload.uptime.clone(),
            match &workload.last_exit {
                Some(exit) => format!("{}, exit {}", workload.restarts, exit.code),
                None => workload.restarts.to_string(),
            },
            workload.triggers.join(", "),
            node_name.clone().unwrap_or_else(|| node.to_string()),
        ]
    };
    titled("Workloads", &columns, running.iter().map(row))
}

/// Suggests commands for a workload.
pub(crate) fn next_commands(name: &str, id: &str, trigger: Option<&str>, repeated: &str, style: Style) -> String {
    let mut lines = vec![format!("  nex{repeated} logs {name}")];
    lines.extend(trigger.map(|subject| format!("  nex{repeated} call {subject} <payload>")));
    lines.push(format!("  nex{repeated} stop {id}"));
    format!("{}\n{}", style.dim("Next:"), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::WorkloadSummary;

    use super::*;

    fn running() -> Running {
        let workload = WorkloadSummary {
            id: "w1".into(),
            namespace: "default".into(),
            name: "echojs".into(),
            r#type: "v8".into(),
            uptime: "3s".into(),
            restarts: 2,
            triggers: vec!["a.b".into(), "c".into()],
            ..WorkloadSummary::default()
        };
        let node = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        Running { node, node_name: Some("quiet-lamp".into()), workload }
    }

    #[test]
    fn workloads_are_listed_with_id_state_triggers_and_node() {
        let text = table(&[running()]).render(None);
        assert_eq!(text.lines().nth(5), Some("│ w1 │ echojs │ v8   │ running │     3s │        2 │ a.b, c   │ quiet-lamp │"));
    }

    #[test]
    fn json_is_flat() {
        let value = &as_json(&[running()])[0];
        assert_eq!(
            (&value["node_name"], &value["name"], &value["restarts"]),
            (&json!("quiet-lamp"), &json!("echojs"), &json!(2))
        );
    }
}

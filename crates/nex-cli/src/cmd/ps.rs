//! `nex ps`: the workloads of the namespace on all nodes.

use clap::Args;
use nex_client::discover::Running;
use serde_json::{Value, json};

use crate::output::Output;
use crate::session::Session;
use crate::style::Style;
use crate::table::{Column, titled};

/// `nex ps`
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only the workloads with this id or name
    #[arg(value_name = "ID|NAME")]
    workload: Option<String>,
}

/// Requests and prints the list.
pub(crate) async fn run(args: &PsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().map(super::stop::workload_token).transpose()?;
    let mut running = session.client.workloads(wanted, session.discovery_timeout).await?;
    running.sort_by(|a, b| (&a.workload.name, &a.workload.id).cmp(&(&b.workload.name, &b.workload.id)));
    if output.is_json() {
        return output.document(&as_json(&running));
    }
    if running.is_empty() {
        output.note(output.style().dim("Run something: nex devrun <file>"));
        return output.line(format_args!("No workloads in namespace {}", session.client.namespace()));
    }
    output.line(table(&running))
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

fn table(running: &[Running]) -> String {
    let columns = [
        Column::Left("ID"),
        Column::Left("Name"),
        Column::Left("Type"),
        Column::Left("State"),
        Column::Right("Uptime"),
        Column::Right("Restarts"),
        Column::Left("Triggers"),
        Column::Left("Node"),
    ];
    let row = |Running { node, node_name, workload }: &Running| {
        let state = if workload.state.is_empty() { "running" } else { &workload.state };
        vec![
            workload.id.clone(),
            workload.name.clone(),
            workload.r#type.clone(),
            state.to_owned(),
            workload.uptime.clone(),
            workload.restarts.to_string(),
            workload.triggers.join(", "),
            node_name.clone().unwrap_or_else(|| node.to_string()),
        ]
    };
    titled("Workloads", &columns, running.iter().map(row))
}

/// Suggests commands for a workload.
pub(crate) fn next_commands(name: &str, id: &str, trigger: Option<&str>, style: Style) -> String {
    let mut lines = vec![format!("  nex logs {name}")];
    lines.extend(trigger.map(|subject| format!("  nex call {subject} <payload>")));
    lines.push(format!("  nex stop {id}"));
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
        let text = table(&[running()]);
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

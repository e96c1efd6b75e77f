//! `nex ps`: the workloads of the namespace, or of all of them, on all nodes.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use nex_client::discover::{Ended, Found, Running};
use nex_client::gather::GatherError;
use nex_protocol::control::{WorkloadPingRequest, WorkloadSummary, uptime};
use serde_json::{Value, json};

use crate::complete;
use crate::env::Env;
use crate::output::Output;
use crate::session::Session;
use crate::style::Style;
use crate::table::{Column, Grid, titled};
use crate::{check, keys};

/// `nex ps`
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only the workloads with this id or name
    #[arg(value_name = "ID|NAME", add = ArgValueCompleter::new(complete::workloads))]
    workload: Option<String>,
    /// Also those that ended within the last day, as far as their nodes remember: exit code, why, when, last line
    #[arg(long, short)]
    all: bool,
    /// Those of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only those that this key has started: a public key, or me
    #[arg(long, value_name = "KEY|me", value_parser = check::issuer)]
    issuer: Option<String>,
}

impl PsArgs {
    async fn find(&self, wanted: Option<&str>, issuer: Option<&str>, session: &Session) -> Result<Found, GatherError> {
        let more = WorkloadPingRequest { ended: true, ..WorkloadPingRequest::default() };
        let mut found = match self.all_namespaces {
            true => session.client.find_everywhere(wanted, &more, session.discovery_timeout).await?,
            false => session.client.find(wanted, &more, session.discovery_timeout).await?,
        };
        if let Some(issuer) = issuer {
            found.running.retain(|running| running.workload.issuer == issuer);
            found.ended.retain(|ended| ended.workload.issuer == issuer);
        }
        found.ended.sort_by_key(|ended| ended.workload.exit.at);
        let key = |it: &Running| (it.workload.namespace.clone(), it.workload.name.clone(), it.workload.id.clone());
        found.running.sort_by_key(key);
        Ok(found)
    }
}

/// Requests and prints the list.
pub(crate) async fn run(args: &PsArgs, session: &Session, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().map(super::stop::workload_token).transpose()?;
    let issuer = keys::named_issuer(args.issuer.as_deref(), env)?;
    let Found { running, ended } = args.find(wanted, issuer.as_deref(), session).await?;
    if output.is_json() {
        let ended = if args.all { ended_as_json(&ended) } else { Vec::new() };
        return output.document(&[as_json(&running), ended].concat());
    }
    if running.is_empty() && (ended.is_empty() || !args.all) {
        let hint = match ended.len() {
            0 if !args.all_namespaces && session.client.namespace().as_str() != "default" => {
                format!("Those of all namespaces: nex{} ps --all-namespaces", session.repeated)
            }
            0 if wanted.is_some() && !args.all_namespaces => format!("All that runs: nex{} ps", session.repeated),
            0 if wanted.is_some() => format!("All that runs: nex{} ps --all-namespaces", session.repeated),
            0 => format!("Run something: nex{} devrun <file>", session.repeated),
            count => format!(
                "{count} ended lately: nex{} ps --all{}",
                session.repeated,
                wanted.map(|name| format!(" {name}")).unwrap_or_default()
            ),
        };
        output.note(output.style().dim(&hint));
        let called = wanted.map(|name| format!(" called '{name}'")).unwrap_or_default();
        let whose = format!("No workloads{called}{}", if issuer.is_some() { " of this issuer" } else { "" });
        return match args.all_namespaces {
            true => output.line(format_args!("{whose} in any namespace")),
            false => output.line(format_args!("{whose} in namespace {}", session.client.namespace())),
        };
    }
    if !running.is_empty() {
        output.table(&table(&running, args.all_namespaces))?;
    }
    if args.all && !ended.is_empty() {
        output.table(&ended_table(&ended, args.all_namespaces, Timestamp::now()))?;
    }
    Ok(())
}

/// Workloads that have ended with their nodes as JSON.
pub(crate) fn ended_as_json(ended: &[Ended]) -> Vec<Value> {
    let one = |Ended { node, node_name, workload }: &Ended| {
        let mut object = json!({ "node_id": node, "node_name": node_name, "state": "ended" });
        if let (Some(object), Ok(Value::Object(members))) = (object.as_object_mut(), serde_json::to_value(workload)) {
            object.extend(members);
        }
        object
    };
    ended.iter().map(one).collect()
}

fn ended_table(ended: &[Ended], has_namespaces: bool, now: Timestamp) -> Grid {
    let namespace = has_namespaces.then_some(Column::left("Namespace"));
    let columns = [Column::left("ID").whole()].into_iter().chain(namespace).chain([
        Column::left("Name"),
        Column::right("Exit"),
        Column::left("Cause").optional(),
        Column::right("Ended"),
        Column::right("Restarts").optional(),
        Column::left("Last line"),
    ]);
    let row = |Ended { workload, .. }: &Ended| {
        let mut row = vec![workload.id.clone()];
        row.extend(has_namespaces.then(|| workload.namespace.clone()));
        row.extend([
            workload.name.clone(),
            workload.exit.code.to_string(),
            workload.exit.cause.to_string(),
            format!("{} ago", ago(workload.exit.at, now)),
            workload.restarts.to_string(),
            workload.last_line.clone().unwrap_or_default(),
        ]);
        row
    };
    titled("Ended lately", &columns.collect::<Vec<_>>(), ended.iter().map(row))
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

fn table(running: &[Running], has_namespaces: bool) -> Grid {
    let namespace = has_namespaces.then_some(Column::left("Namespace"));
    let columns = [Column::left("ID").whole()].into_iter().chain(namespace).chain([
        Column::left("Name"),
        Column::left("Type").whole(),
        Column::left("State").whole(),
        Column::right("Uptime").optional(),
        Column::right("Restarts").optional(),
        Column::left("Isolation").optional(),
        Column::left("Triggers"),
        Column::left("Node"),
    ]);
    let row = |Running { node, node_name, workload }: &Running| {
        let state = if workload.state.is_empty() { "running" } else { &workload.state };
        let mut row = vec![workload.id.clone()];
        row.extend(has_namespaces.then(|| workload.namespace.clone()));
        row.extend([
            workload.name.clone(),
            workload.r#type.clone(),
            state.to_owned(),
            workload.uptime.clone(),
            match &workload.last_exit {
                Some(exit) => format!("{}, exit {}", workload.restarts, exit.code),
                None => workload.restarts.to_string(),
            },
            workload.isolation.map(|isolation| isolation.to_string()).unwrap_or_default(),
            triggers(workload),
            node_name.clone().unwrap_or_else(|| node.to_string()),
        ]);
        row
    };
    titled("Workloads", &columns.collect::<Vec<_>>(), running.iter().map(row))
}

/// What calls it; one that cannot be served now is marked.
fn triggers(workload: &WorkloadSummary) -> String {
    let is_failing = |text: &String| workload.trigger_states.iter().any(|it| it.trigger == *text && it.state == "failing");
    let shown = |text: &String| if is_failing(text) { format!("{text} (failing)") } else { text.clone() };
    workload.triggers.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Suggests commands for a workload.
pub(crate) fn next_commands(name: &str, id: &str, trigger: Option<&str>, repeated: &str, style: Style) -> String {
    // With what it said while this was printed.
    let mut lines = vec![format!("  nex{repeated} logs {name} --tail 20 --follow")];
    lines.extend(trigger.map(|subject| format!("  nex{repeated} call {subject} <payload>")));
    lines.push(format!("  nex{repeated} stop {id}"));
    format!("{}\n{}", style.dim("Next:"), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Running {
        let workload = WorkloadSummary {
            id: "w1".into(),
            namespace: "default".into(),
            name: "echojs".into(),
            r#type: "v8".into(),
            uptime: "3s".into(),
            restarts: 2,
            isolation: "process".parse().ok(),
            triggers: vec!["a.b".into(), "c".into()],
            ..WorkloadSummary::default()
        };
        let node = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        Running { node, node_name: Some("quiet-lamp".into()), workload }
    }

    #[test]
    fn workloads_are_listed_with_id_state_triggers_and_node() {
        let text = table(&[running()], false).render(None);
        assert_eq!(
            text.lines().nth(5),
            Some("│ w1 │ echojs │ v8   │ running │     3s │        2 │ process   │ a.b, c   │ quiet-lamp │")
        );
        let text = table(&[running()], true).render(None);
        assert!(text.contains("│ ID │ Namespace │ Name   │") && text.contains("│ w1 │ default   │ echojs │"), "{text}");
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

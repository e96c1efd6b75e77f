//! `nex describe`: all that the nodes know of a workload, each copy with the state of its triggers and what has happened to it.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use nex_client::discover::{Ended, Found, Running};
use nex_protocol::control::{TriggerSummary, WorkloadPingRequest, uptime};
use serde_json::{Value, json};

use super::ps;
use super::stop::workload_token;
use crate::complete;
use crate::output::Output;
use crate::session::Session;
use crate::story::Story;
use crate::table::{Column, Grid, properties, titled};

/// Most workloads of a name that have ended and are shown, where none runs.
const ENDED: usize = 3;

/// `nex describe`
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Id or name of the workload
    #[arg(value_name = "ID|NAME", add = ArgValueCompleter::new(complete::workloads))]
    workload: String,
}

/// Requests and prints.
pub(crate) async fn run(args: &DescribeArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = workload_token(&args.workload)?;
    let more = WorkloadPingRequest { ended: true, ..WorkloadPingRequest::default() };
    let Found { mut running, mut ended } = session.client.find(Some(wanted), &more, session.discovery_timeout).await?;
    running.sort_by(|a, b| a.workload.id.cmp(&b.workload.id));
    ended.sort_by_key(|ended| ended.workload.exit.at);
    ended.drain(..ended.len().saturating_sub(ENDED));
    if !running.is_empty() {
        ended.clear();
    }
    let told = Story::read(wanted, session).await?;
    let mut others = told.ids();
    if !running.is_empty() || !ended.is_empty() {
        others.clear();
    }
    anyhow::ensure!(
        !running.is_empty() || !ended.is_empty() || !others.is_empty(),
        "no workload of namespace {} is or is called '{wanted}', and its nodes have kept nothing of one; next: see what runs with `nex ps`",
        session.client.namespace()
    );
    if output.is_json() {
        let ended = ps::ended_as_json(&ended);
        let others = others.iter().map(|id| json!({ "id": id, "state": "ended" }));
        let mut all: Vec<Value> = ps::as_json(&running).into_iter().chain(ended).chain(others).collect();
        for one in &mut all {
            let story = json!(told.of(one["id"].as_str().unwrap_or_default()));
            one.as_object_mut().map(|one| one.insert("story".to_owned(), story));
        }
        return output.document(&all);
    }
    for copy in &running {
        output.table(&copy_table(copy))?;
        if !copy.workload.trigger_states.is_empty() {
            output.table(&triggers(&copy.workload.trigger_states))?;
        }
        for trigger in &copy.workload.trigger_states {
            if let Some(error) = last_error(trigger, Timestamp::now()) {
                output.line(error)?;
            }
        }
        told.print(&copy.workload.id, session, output).await?;
    }
    for copy in &ended {
        output.table(&ended_table(copy, Timestamp::now()))?;
        told.print(&copy.workload.id, session, output).await?;
    }
    for id in others {
        output.line(format_args!("{wanted}/{id} has ended"))?;
        told.print(&id, session, output).await?;
    }
    Ok(())
}

fn ended_table(Ended { node, node_name, workload }: &Ended, now: Timestamp) -> Grid {
    let node = node_name.as_ref().map_or_else(|| node.to_string(), |name| format!("{name} ({node})"));
    let mut rows = vec![
        ("ID", workload.id.clone()),
        ("Type", workload.r#type.clone()),
        ("State", "ended".to_owned()),
        ("Ended", format!("{} ago", ps::ago(workload.exit.at, now))),
        ("Exit", format!("{} ({}): {}", workload.exit.code, workload.exit.cause, workload.exit.reason)),
        ("Restarts", workload.restarts.to_string()),
        ("Issuer", workload.issuer.clone()),
        ("Node", node),
    ];
    rows.extend(workload.revision.clone().map(|revision| ("Revision", revision)));
    properties(&workload.name, rows)
}

fn copy_table(Running { node, node_name, workload }: &Running) -> Grid {
    let node = node_name.as_ref().map_or_else(|| node.to_string(), |name| format!("{name} ({node})"));
    let mut rows = vec![
        ("ID", workload.id.clone()),
        ("Namespace", workload.namespace.clone()),
        ("Type", workload.r#type.clone()),
        ("State", if workload.state.is_empty() { "running".to_owned() } else { workload.state.clone() }),
        ("Uptime", workload.uptime.clone()),
        ("Restarts", workload.restarts.to_string()),
        ("Triggers", workload.triggers.join(", ")),
        ("Issuer", workload.issuer.clone()),
        ("Node", node),
    ];
    rows.extend(workload.isolation.map(|isolation| ("Isolation", isolation.to_string())));
    rows.extend(workload.revision.clone().map(|revision| ("Revision", revision)));
    if !workload.secrets.is_empty() {
        rows.push(("Secrets", workload.secrets.join(", ")));
    }
    rows.extend(workload.last_exit.as_ref().map(|exit| ("Last exit", format!("{} ({})", exit.code, exit.reason))));
    properties(&workload.name, rows)
}

fn triggers(states: &[TriggerSummary]) -> Grid {
    let columns = [
        Column::left("Trigger"),
        Column::left("State").whole(),
        Column::right("Lag"),
        Column::right("Done"),
        Column::right("Held back").optional(),
        Column::right("Retried").optional(),
        Column::right("Dead"),
        Column::left("Consumer").optional(),
    ];
    let row = |it: &TriggerSummary| {
        vec![
            it.trigger.clone(),
            it.state.clone(),
            it.lag().to_string(),
            it.done.to_string(),
            it.held_back.to_string(),
            it.retried.to_string(),
            it.dead.to_string(),
            it.consumer.clone(),
        ]
    };
    titled("Triggers", &columns, states.iter().map(row))
}

fn last_error(trigger: &TriggerSummary, now: Timestamp) -> Option<String> {
    let (error, at) = (trigger.last_error.as_ref()?, trigger.last_error_at?);
    let seconds = u64::try_from(now.as_second().saturating_sub(at)).unwrap_or(0);
    let error: String = error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(format!("{}, {} ago: {error}", trigger.trigger, uptime(Duration::from_secs(seconds))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_shown_with_its_lag_and_its_last_error_without_control_characters() {
        let trigger = TriggerSummary {
            trigger: "stream:ORDERS".into(),
            state: "active".into(),
            waiting: 3,
            unacknowledged: 2,
            done: 7,
            last_error: Some("it\u{1b}[2J failed".into()),
            last_error_at: Some(100),
            ..TriggerSummary::default()
        };
        let shown = triggers(std::slice::from_ref(&trigger)).render(None);
        assert!(shown.contains("│ stream:ORDERS │ active │   5 │    7 │"), "{shown}");
        let now = Timestamp::from_second(103).unwrap();
        assert_eq!(last_error(&trigger, now).as_deref(), Some("stream:ORDERS, 3s ago: it [2J failed"));
    }
}

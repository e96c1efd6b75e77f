//! `nex top`: what nodes and the workloads of the namespace use, again and again.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::future::join_all;
use nex_client::discover::{Found, Running};
use nex_protocol::control::{HostUse, InfoResponse, WorkloadPingRequest};
use nex_protocol::id::NodeId;
use serde_json::{Value, json};

use crate::check;
use crate::output::Output;
use crate::session::Session;
use crate::style::harmless;
use crate::table::{Column, Grid, titled};

const MIB: u64 = 1024 * 1024;
/// Lines of the smallest terminal, and those that tables take besides their rows.
const SCREEN: usize = 24;
const BORDERS: usize = 13;
/// Shortest time between two questions: processor time is counted in hundredths of a second.
const SHORTEST: Duration = Duration::from_millis(200);

/// What workloads are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Cpu,
    Memory,
    Name,
}

/// `nex top`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex top                           what is used, every two seconds
  nex top --once --sort memory      once, the largest first
  nex top --once --json             for a program

CPU is percent of one processor; memory that of the workload's sandbox, its agent included.")]
pub(crate) struct TopArgs {
    /// Print once and end
    #[arg(long)]
    once: bool,
    /// Time between two looks, over which processor time is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = check::duration)]
    interval: Duration,
    /// What workloads are sorted by
    #[arg(long, value_name = "WHAT", default_value = "cpu")]
    sort: Order,
    /// At most so many workloads; on a terminal those that fit into 24 lines, if nothing is said
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// What was measured at one moment.
#[derive(Debug, Default)]
struct Look {
    nodes: Vec<(NodeId, InfoResponse, usize)>,
    workloads: Vec<Running>,
}

impl Look {
    async fn take(session: &Session) -> anyhow::Result<Self> {
        let more = WorkloadPingRequest { usage: true, ..WorkloadPingRequest::default() };
        let (nodes, found) = tokio::join!(
            session.client.nodes(session.discovery_timeout),
            session.client.find(None, &more, session.discovery_timeout)
        );
        let Found { running, .. } = found?;
        let known = nodes?.into_iter().filter_map(|node| Some((node.node_id.parse::<NodeId>().ok()?, node.running_machines)));
        let asked = known.map(|(node, count)| async move {
            // One that went away meanwhile is not shown.
            session.client.info(&node).await.ok().map(|info| (node, info, count))
        });
        let mut nodes: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { nodes, workloads: running })
    }
}

/// A node as it is shown.
#[derive(Debug, PartialEq)]
struct NodeRow {
    node: NodeId,
    name: String,
    cpu: Option<f64>,
    processors: Option<u64>,
    memory: Option<(u64, u64)>,
    workloads: usize,
}

/// A workload as it is shown.
#[derive(Debug, PartialEq)]
struct WorkloadRow {
    id: String,
    name: String,
    kind: String,
    state: String,
    cpu: Option<f64>,
    memory: Option<u64>,
    limit: Option<u64>,
    restarts: u32,
    node: String,
}

/// Prints again and again, or once.
pub(crate) async fn run(args: &TopArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let interval = args.interval.max(SHORTEST);
    let mut before = Look::take(session).await?;
    loop {
        tokio::time::sleep(interval).await;
        let now = Look::take(session).await?;
        let (nodes, mut workloads) = (nodes(&before, &now), workloads(&before, &now));
        sort(&mut workloads, args.sort);
        show(args, (&nodes, &workloads), output)?;
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

fn show(args: &TopArgs, (nodes, workloads): (&[NodeRow], &[WorkloadRow]), output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        let all = as_json(nodes, workloads);
        return if args.once { output.document(&all) } else { output.json(&all) };
    }
    let is_screen = !args.once && stdout().is_terminal();
    if is_screen {
        // To the upper left corner, and nothing below.
        output.reply(b"\x1b[H\x1b[2J")?;
    }
    let fitting = SCREEN.saturating_sub(BORDERS + nodes.len()).max(3);
    let most = args.limit.unwrap_or(if is_screen { fitting } else { usize::MAX });
    output.table(&node_table(nodes))?;
    if workloads.is_empty() {
        return output.line("No workloads");
    }
    output.table(&workload_table(workloads.get(..most).unwrap_or(workloads)))?;
    match workloads.len().checked_sub(most) {
        Some(more) if more > 0 => output.line(format_args!("and {more} more")),
        _ => Ok(()),
    }
}

fn nodes(before: &Look, now: &Look) -> Vec<NodeRow> {
    let earlier: BTreeMap<_, _> = before.nodes.iter().filter_map(|(node, info, _)| Some((node, info.host?))).collect();
    let row = |(node, info, workloads): &(NodeId, InfoResponse, usize)| NodeRow {
        node: node.clone(),
        name: info.tags.get("node_name").cloned().unwrap_or_else(|| node.to_string()),
        cpu: info.host.and_then(|host| busy(earlier.get(node)?, &host)),
        processors: info.host.map(|host| host.processors),
        memory: info.memory.map(|memory| (memory.total.saturating_sub(memory.available) * 1024, memory.total * 1024)),
        workloads: *workloads,
    };
    now.nodes.iter().map(row).collect()
}

/// Percent of one processor that a host was busy between two looks.
fn busy(before: &HostUse, now: &HostUse) -> Option<f64> {
    percent(now.busy_ms.checked_sub(before.busy_ms)?, now.at_ms.checked_sub(before.at_ms)?)
}

fn percent(used_ms: u64, passed_ms: u64) -> Option<f64> {
    let (used, passed) = (u32::try_from(used_ms).ok()?, u32::try_from(passed_ms).ok().filter(|ms| *ms > 0)?);
    Some(f64::from(used) * 100.0 / f64::from(passed))
}

fn workloads(before: &Look, now: &Look) -> Vec<WorkloadRow> {
    let earlier: BTreeMap<_, _> =
        before.workloads.iter().filter_map(|it| Some(((&it.node, &it.workload.id), it.workload.usage?))).collect();
    let row = |Running { node, node_name, workload }: &Running| {
        let usage = workload.usage;
        // One that was started again since begins at nothing.
        let cpu = usage.and_then(|usage| {
            let before = earlier.get(&(node, &workload.id))?;
            percent(usage.cpu_ms.checked_sub(before.cpu_ms)?, usage.at_ms.checked_sub(before.at_ms)?)
        });
        WorkloadRow {
            id: workload.id.clone(),
            name: workload.name.clone(),
            kind: workload.r#type.clone(),
            state: if workload.state.is_empty() { "running".to_owned() } else { workload.state.clone() },
            cpu,
            memory: usage.map(|usage| usage.memory_bytes),
            limit: usage.and_then(|usage| usage.memory_limit_bytes),
            restarts: workload.restarts,
            node: node_name.clone().unwrap_or_else(|| node.to_string()),
        }
    };
    now.workloads.iter().map(row).collect()
}

fn sort(rows: &mut [WorkloadRow], order: Order) {
    rows.sort_by(|a, b| {
        let by_name = || (&a.name, &a.id).cmp(&(&b.name, &b.id));
        let by = match order {
            Order::Cpu => b.cpu.unwrap_or(-1.0).total_cmp(&a.cpu.unwrap_or(-1.0)),
            Order::Memory => b.memory.cmp(&a.memory),
            Order::Name => std::cmp::Ordering::Equal,
        };
        by.then_with(by_name)
    });
}

fn shown_percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}"))
}

fn shown_mib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.div_ceil(MIB).to_string())
}

fn node_table(nodes: &[NodeRow]) -> Grid {
    let columns = [
        Column::left("Node"),
        Column::right("CPU %"),
        Column::right("of"),
        Column::right("MiB used"),
        Column::right("of"),
        Column::right("Workloads"),
    ];
    let row = |it: &NodeRow| {
        vec![
            it.name.clone(),
            shown_percent(it.cpu),
            it.processors.map_or_else(|| "-".to_owned(), |count| (count * 100).to_string()),
            shown_mib(it.memory.map(|(used, _)| used)),
            shown_mib(it.memory.map(|(_, total)| total)),
            it.workloads.to_string(),
        ]
    };
    titled("Nodes", &columns, nodes.iter().map(row))
}

fn workload_table(workloads: &[WorkloadRow]) -> Grid {
    let columns = [
        Column::left("Name"),
        Column::right("CPU %"),
        Column::right("MiB"),
        Column::right("of"),
        Column::left("State").whole(),
        Column::left("Node"),
        Column::left("ID").optional(),
        Column::left("Type").optional(),
        Column::right("Restarts").optional(),
    ];
    let row = |it: &WorkloadRow| {
        vec![
            harmless(&it.name).into_owned(),
            shown_percent(it.cpu),
            shown_mib(it.memory),
            shown_mib(it.limit),
            it.state.clone(),
            it.node.clone(),
            it.id.clone(),
            it.kind.clone(),
            it.restarts.to_string(),
        ]
    };
    titled("Workloads", &columns, workloads.iter().map(row))
}

fn as_json(nodes: &[NodeRow], workloads: &[WorkloadRow]) -> Value {
    let node = |it: &NodeRow| {
        json!({
            "node_id": it.node, "name": it.name, "cpu_percent": it.cpu, "processors": it.processors,
            "memory_bytes": it.memory.map(|(used, _)| used), "memory_total_bytes": it.memory.map(|(_, total)| total),
            "workloads": it.workloads,
        })
    };
    let workload = |it: &WorkloadRow| {
        json!({
            "id": it.id, "name": it.name, "type": it.kind, "state": it.state, "cpu_percent": it.cpu, "memory_bytes": it.memory,
            "memory_limit_bytes": it.limit, "restarts": it.restarts, "node": it.node,
        })
    };
    json!({ "nodes": nodes.iter().map(node).collect::<Vec<_>>(), "workloads": workloads.iter().map(workload).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::{ResourceSummary, WorkloadSummary};

    use super::*;

    fn running(node: &NodeId, name: &str, usage: Option<(u64, u64, u64)>) -> Running {
        let usage = usage.map(|(at_ms, cpu_ms, mib)| ResourceSummary {
            at_ms,
            cpu_ms,
            memory_bytes: mib * MIB,
            memory_limit_bytes: Some(256 * MIB),
        });
        let workload = WorkloadSummary { id: format!("id-of-{name}-0000000"), name: name.into(), usage, ..Default::default() };
        Running { node: node.clone(), node_name: Some("quiet-lamp-with-a-long-name".into()), workload }
    }

    #[test]
    fn percent_is_what_was_used_between_two_looks_and_the_busiest_comes_first() {
        let node: NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        let look = |workloads| Look { nodes: Vec::new(), workloads };
        let before = look(vec![
            running(&node, "calm", Some((1_000, 50, 9))),
            running(&node, "busy", Some((1_000, 500, 3))),
            running(&node, "again", Some((1_000, 900, 3))),
        ]);
        let now = look(vec![
            running(&node, "calm", Some((3_000, 70, 9))),
            running(&node, "busy", Some((3_000, 3_500, 4))),
            running(&node, "again", Some((3_000, 20, 3))),
            running(&node, "old", None),
        ]);
        let mut rows = workloads(&before, &now);
        sort(&mut rows, Order::Cpu);
        let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.cpu)).collect();
        assert_eq!(seen, [("busy", Some(150.0)), ("calm", Some(1.0)), ("again", None), ("old", None)]);
        sort(&mut rows, Order::Memory);
        assert_eq!(rows[0].name, "calm");
        let text = workload_table(&rows).render(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("150.0") && text.contains("256"), "{text}");
        let json = as_json(&[], &rows);
        assert_eq!((&json["workloads"][1]["name"], &json["workloads"][1]["cpu_percent"]), (&json!("busy"), &json!(150.0)));
    }

    #[test]
    fn a_host_is_as_busy_as_its_processors_were() {
        let at = |at_ms, busy_ms| HostUse { at_ms, busy_ms, processors: 2 };
        assert_eq!(busy(&at(0, 0), &at(1_000, 1_500)), Some(150.0));
        assert_eq!(busy(&at(1_000, 0), &at(1_000, 1_500)), None);
        assert_eq!(busy(&at(1_000, 10), &at(2_000, 5)), None, "the clock of another host");
    }
}

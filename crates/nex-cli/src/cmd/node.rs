//! `nex node …`: its subcommands, of which the short ones are here.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use nex_client::discover::Running;
use nex_protocol::control::NodeSummary;

use super::lameduck::{self, LameduckArgs};
use super::node_info::{self, InfoArgs};
use super::node_stop::NodeStopArgs;
use super::node_up::NodeUpArgs;
use super::node_upgrade::NodeUpgradeArgs;
use super::preflight::PreflightArgs;
use crate::complete;
use crate::output::Output;
use crate::session::Session;
use crate::table::{Column, Grid, titled};

/// The commands about nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run a node in the foreground, on a NATS that is there already
    Up(Box<NodeUpArgs>),
    /// Stop the node of this host, and all that runs on it
    Stop(NodeStopArgs),
    /// Have the node of this host go on as the program that is installed now, without an end of what runs on it
    Upgrade(NodeUpgradeArgs),
    /// Check that everything a node needs is here
    Preflight(Box<PreflightArgs>),
    /// List the nodes that answer
    Ls(LsArgs),
    /// Show one node and the namespace's workloads on it
    Info(InfoArgs),
    /// Find the nodes that run a workload
    Probe(ProbeArgs),
    /// Let a node take no more workloads, and end when nothing runs any more; there is no way back
    Lameduck(LameduckArgs),
}

/// `nex node ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show more columns
    #[arg(long)]
    full: bool,
}

/// `nex node probe`
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Id or name of the workload [default: all of the namespace]
    #[arg(long, value_name = "ID|NAME", add = ArgValueCompleter::new(complete::workloads))]
    workload: Option<String>,
}

/// Runs a subcommand.
pub(crate) async fn run(command: &NodeCommand, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    match command {
        NodeCommand::Ls(args) => ls(args, session, output).await,
        NodeCommand::Info(args) => node_info::run(args, session, output).await,
        NodeCommand::Probe(args) => probe(args, session, output).await,
        NodeCommand::Lameduck(args) => lameduck::run(args, session, output).await,
        NodeCommand::Up(_) | NodeCommand::Stop(_) | NodeCommand::Upgrade(_) | NodeCommand::Preflight(_) => Ok(()),
    }
}

async fn ls(args: &LsArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let mut nodes = session.client.nodes(session.discovery_timeout).await?;
    nodes.sort_by(|a, b| (&a.nexus, name_of(a), &a.node_id).cmp(&(&b.nexus, name_of(b), &b.node_id)));
    if output.is_json() {
        return output.document(&nodes);
    }
    if nodes.is_empty() {
        return output.line("No nodes discovered");
    }
    output.table(&if args.full { full_table(&nodes) } else { short_table(&nodes) })
}

fn short_table(nodes: &[NodeSummary]) -> Grid {
    let columns = [
        Column::left("ID (* = Lameduck Mode)"),
        Column::left("Name"),
        Column::left("Version"),
        Column::left("Uptime"),
        Column::right("Workloads"),
    ];
    let row = |node: &NodeSummary| {
        vec![id_of(node), name_of(node).into(), node.version.clone(), node.uptime.clone(), node.running_machines.to_string()]
    };
    titled("NATS Execution Nodes", &columns, nodes.iter().map(row))
}

fn full_table(nodes: &[NodeSummary]) -> Grid {
    let columns = [
        Column::left("Nexus"),
        Column::left("ID (* = Lameduck Mode)"),
        Column::left("Name"),
        Column::left("Version"),
        Column::right("Workloads"),
        Column::left("Uptime"),
        Column::left("Sandboxed"),
        Column::left("OS"),
        Column::left("Arch"),
    ];
    let row = |node: &NodeSummary| {
        let tag = |name: &str| node.tags.get(name).cloned().unwrap_or_default();
        let (nexus, version, uptime) = (node.nexus.clone(), node.version.clone(), node.uptime.clone());
        let sandboxed = (tag("nex.unsafe") != "true").to_string();
        let workloads = node.running_machines.to_string();
        vec![nexus, id_of(node), name_of(node).into(), version, workloads, uptime, sandboxed, tag("nex.os"), tag("nex.arch")]
    };
    titled("NATS Execution Nodes", &columns, nodes.iter().map(row))
}

fn name_of(node: &NodeSummary) -> &str {
    node.tags.get("node_name").map_or("no-name", String::as_str)
}

fn id_of(node: &NodeSummary) -> String {
    let drains = node.tags.get("nex.lameduck").is_some_and(|value| value == "true");
    format!("{}{}", node.node_id, if drains { "*" } else { "" })
}

async fn probe(args: &ProbeArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let wanted = args.workload.as_deref().map(super::stop::workload_token).transpose()?;
    let running = session.client.workloads(wanted, session.discovery_timeout).await?;
    if output.is_json() {
        return output.document(&super::ps::as_json(&running));
    }
    if running.is_empty() {
        return output.line("No workloads matched");
    }
    let columns = ["ID", "Name", "Type", "Namespace", "Node Name"].map(Column::left);
    let row = |Running { workload, node_name, .. }: &Running| {
        let node_name = node_name.clone().unwrap_or_else(|| "no-name".into());
        vec![workload.id.clone(), workload.name.clone(), workload.r#type.clone(), workload.namespace.clone(), node_name]
    };
    output.table(&titled("Discovered Workloads", &columns, running.iter().map(row)))
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::Tags;

    use super::*;

    fn node() -> NodeSummary {
        let tags = [("node_name", "quiet-lamp"), ("nex.os", "linux"), ("nex.arch", "amd64"), ("nex.lameduck", "true")];
        NodeSummary {
            node_id: "NABC".into(),
            nexus: "nexus".into(),
            version: "0.1.0".into(),
            uptime: "3m12s".into(),
            running_machines: 12,
            tags: tags.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Tags>(),
            ..NodeSummary::default()
        }
    }

    #[test]
    fn nodes_are_listed_and_lame_ducks_marked() {
        let text = short_table(&[node()]).render(None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("NATS Execution Nodes"), "{text}");
        assert_eq!(lines[3], "│ ID (* = Lameduck Mode) │ Name       │ Version │ Uptime │ Workloads │");
        assert_eq!(lines[5], "│ NABC*                  │ quiet-lamp │ 0.1.0   │ 3m12s  │        12 │");
    }

    #[test]
    fn the_full_list_has_the_columns_of_0_2_7() {
        let text = full_table(&[node()]).render(None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[3],
            "│ Nexus │ ID (* = Lameduck Mode) │ Name       │ Version │ Workloads │ Uptime │ Sandboxed │ OS    │ Arch  │"
        );
        assert_eq!(
            lines[5],
            "│ nexus │ NABC*                  │ quiet-lamp │ 0.1.0   │        12 │ 3m12s  │ true      │ linux │ amd64 │"
        );
    }
}

//! `nex node info`: shows a node and the namespace's workloads on it.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use nex_protocol::control::{HistorySummary, InfoResponse, Machine, QuotaSummary};
use nex_protocol::id::NodeId;

use crate::complete;
use crate::node_ref::NodeRef;
use crate::output::Output;
use crate::session::Session;
use crate::table::{Column, Grid, properties, titled};

const MIB: u64 = 1024 * 1024;

/// `nex node info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Id of the node (N…), or its name
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: NodeRef,
    /// Show more about each workload
    #[arg(long)]
    full: bool,
}

/// Requests and prints the information.
pub(crate) async fn run(args: &InfoArgs, session: &Session, output: &mut Output) -> anyhow::Result<()> {
    let node = args.node.resolve(session).await?;
    let info = session.client.info(&node).await?;
    if output.is_json() {
        return output.document(&info);
    }
    output.table(&node_table(&node, &info))?;
    if !info.quotas.is_empty() {
        output.table(&quotas(&info.quotas))?;
    }
    if info.machines.is_empty() {
        return output.line(format_args!("No workloads of namespace {}", session.client.namespace()));
    }
    output.table(&if args.full { full_workloads(&info.machines) } else { workloads(&info.machines) })?;
    if info.more_machines > 0 {
        output.note(format_args!("and {} more, for which one message has no room; `nex ps` has them all", info.more_machines));
    }
    Ok(())
}

fn node_table(node: &NodeId, info: &InfoResponse) -> Grid {
    let tags = info.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("Node", node.to_string()),
        ("Xkey", info.public_xkey.clone()),
        ("Version", info.version.clone()),
        ("Uptime", info.uptime.clone()),
        ("Tags", tags),
        ("Types", info.supported_workload_types.join(", ")),
    ];
    if let Some(memory) = info.memory {
        let numbers = [("  Free", memory.free), ("  Available", memory.available), ("  Total", memory.total)];
        rows.push(("Memory in kB", String::new()));
        rows.extend(numbers.map(|(name, number)| (name, thousands(number))));
    }
    rows.extend(info.history.map(|history| ("History", kept(history))));
    properties("NEX Node Information", rows)
}

fn quotas(quotas: &[QuotaSummary]) -> Grid {
    let columns = [Column::left("Quota of"), Column::left("What").whole(), Column::right("Used"), Column::right("Most")];
    let row = |it: &QuotaSummary| {
        let used = it.used.map_or_else(String::new, |used| used.to_string());
        vec![it.of.clone(), it.what.clone(), used, format!("{} {}", it.most, it.unit).trim_end().to_owned()]
    };
    titled("Quotas", &columns, quotas.iter().map(row))
}

/// How much it keeps of log lines and events.
fn kept(HistorySummary { bytes, max_bytes, lost }: HistorySummary) -> String {
    let size = format!("{} of {} MiB", bytes.div_ceil(MIB), max_bytes / MIB);
    if lost == 0 { size } else { format!("{size}; {lost} lines and events were lost: its disk does not take them") }
}

fn workloads(machines: &[Machine]) -> Grid {
    let columns = [Column::left("Healthy").whole(), Column::left("ID").whole(), Column::left("Name"), Column::right("Runtime")];
    let row = |machine: &Machine| {
        vec![health(machine).into(), machine.id.clone(), machine.workload.name.clone(), machine.workload.runtime.clone()]
    };
    titled("Workloads", &columns, machines.iter().map(row))
}

fn full_workloads(machines: &[Machine]) -> Grid {
    let columns = [
        Column::left("Healthy").whole(),
        Column::left("ID").whole(),
        Column::left("Name"),
        Column::left("Type").whole(),
        Column::right("Uptime"),
        Column::right("Runtime"),
        Column::left("SHA-256"),
        Column::left("Description"),
    ];
    let row = |machine: &Machine| {
        let workload = &machine.workload;
        let hash: String = workload.hash.chars().take(12).collect();
        vec![
            health(machine).into(),
            machine.id.clone(),
            workload.name.clone(),
            workload.r#type.clone(),
            machine.uptime.clone(),
            workload.runtime.clone(),
            hash,
            workload.description.clone(),
        ]
    };
    titled("Workloads", &columns, machines.iter().map(row))
}

fn health(machine: &Machine) -> &'static str {
    if machine.healthy { "🟢" } else { "🔴" }
}

/// Formats `16384000` as `16,384,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::{MachineWorkload, Memory};

    use super::*;

    #[test]
    fn a_node_shows_itself_and_its_memory() {
        let node: NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        let info = InfoResponse {
            version: "0.1.0".into(),
            uptime: "1s".into(),
            tags: [("zone".to_owned(), "a".to_owned())].into(),
            memory: Some(Memory { total: 16_384_000, free: 12, available: 1_000 }),
            ..InfoResponse::default()
        };
        let text = node_table(&node, &info).render(None);
        for part in ["NEX Node Information", node.as_str(), "zone=a", "16,384,000", "1,000", "│ Version "] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_workload_shows_its_health() {
        let workload =
            MachineWorkload { name: "echo".into(), runtime: "3ms".into(), hash: "ab".repeat(32), ..Default::default() };
        let machine = Machine { id: "w1".into(), healthy: true, uptime: "5s".into(), namespace: String::new(), workload };
        let text = workloads(&[machine.clone(), Machine { healthy: false, ..machine.clone() }]).render(None);
        assert!(text.contains("🟢") && text.contains("🔴") && text.contains("│ echo │"), "{text}");
        let full = full_workloads(&[machine]).render(None);
        assert!(full.contains("│ abababababab │") && full.contains("Description"), "{full}");
        let widths: Vec<usize> = text.lines().take(3).map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}

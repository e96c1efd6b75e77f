//! Memory that belongs to agents alone, as the kernel counts it (`Private_*` of `smaps_rollup`): idle, and with a function.
//!
//! Several agents live at once, so the pages of their program, which they share, are not counted as any one's own.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nex_client::call::CallError;
use serde::Serialize;

use crate::plan::Plan;
use crate::world::{PATIENCE, Way, World, functions};

/// Mebibytes for each agent.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Warm agents looked at.
    pub(crate) agents: usize,
    pub(crate) idle_agent_mib: f64,
    /// Functions of each type.
    pub(crate) functions: usize,
    /// With a function that was called once, by type.
    pub(crate) with_function_mib: BTreeMap<String, f64>,
    /// The node itself.
    pub(crate) node_mib: f64,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Memory> {
    let world = World::start(Way::Direct, plan.warm_agents).await?;
    let node = world.node.id().context("the node has ended")?;
    let agents = plan.warm_agents as f64;
    let idle = agents_of(node) / agents;
    let mut with_function = BTreeMap::new();
    for (name, kind, bytes) in functions() {
        let base = world.deployment(name, kind, &bytes).await?;
        let mut started = Vec::new();
        for number in 0..plan.idle_functions {
            let mut deployment = base.clone();
            deployment.name = format!("{name}-{number}").parse()?;
            deployment.triggers = vec![deployment.name.to_string()];
            world.warm(1).await?;
            started.push(world.deploy(&deployment).await?);
            let called: Result<_, CallError> = world.client.call(deployment.name.as_str(), "x".into(), PATIENCE).await;
            called?;
        }
        world.warm(plan.warm_agents).await?;
        let all = agents_of(node);
        with_function.insert(name.to_owned(), (all - idle * agents) / plan.idle_functions as f64);
        for started in &started {
            world.stop(started).await?;
        }
    }
    let node_mib = private(node);
    world.end().await?;
    Ok(Memory {
        agents: plan.warm_agents,
        idle_agent_mib: idle,
        functions: plan.idle_functions,
        with_function_mib: with_function,
        node_mib,
    })
}

/// Private memory of all agents that descend from a node.
fn agents_of(node: u32) -> f64 {
    let parents = parents();
    let descends = |mut pid: u32| {
        // Bounded: the table may change while it is read.
        for _ in 0..16 {
            match parents.get(&pid) {
                Some((parent, _)) if *parent == node => return true,
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let agents = parents.iter().filter(|(pid, (_, name))| name.starts_with("nex-agent") && descends(**pid));
    agents.map(|(pid, _)| private(*pid)).sum()
}

/// Parent and name of every process.
fn parents() -> BTreeMap<u32, (u32, String)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let parent = tail.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, (parent, name.to_owned())))
    };
    processes.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Private memory of a process, in MiB; nothing when it has ended.
fn private(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    kib as f64 / 1024.0
}

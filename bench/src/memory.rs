//! Memory that a further agent costs, as the kernel counts it (`Pss_Anon` and `SwapPss` of `smaps_rollup`, all processes of the
//! agent together): idle, and with a function. The pages of its program are not in it; all agents share them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nex_client::call::CallError;
use serde::Serialize;

use crate::plan::{Plan, TIMEOUT};
use crate::processes::{memory, memory_of_agents};
use crate::world::{Way, World, functions};

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
    let idle = memory_of_agents(node) / agents;
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
            let called: Result<_, CallError> = world.client.call(deployment.name.as_str(), "x".into(), TIMEOUT).await;
            called?;
        }
        world.warm(plan.warm_agents).await?;
        let all = memory_of_agents(node);
        with_function.insert(name.to_owned(), (all - idle * agents) / plan.idle_functions as f64);
        for started in &started {
            world.stop(started).await?;
        }
    }
    let node_mib = memory(node);
    world.end().await?;
    Ok(Memory {
        agents: plan.warm_agents,
        idle_agent_mib: idle,
        functions: plan.idle_functions,
        with_function_mib: with_function,
        node_mib,
    })
}

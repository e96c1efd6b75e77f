//! Memory of one more agent, idle and with a function: `Pss_Anon` and `SwapPss` of `smaps_rollup` of all its processes. Excludes the
//! pages of its program, which all agents share.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nex_client::call::CallError;
use serde::Serialize;

use crate::fixture::{Fixture, Way, functions};
use crate::plan::{Plan, TIMEOUT};
use crate::processes::{memory, memory_of_agents};

/// Memory of an agent, in MiB.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Number of warm agents measured.
    pub(crate) agents: usize,
    pub(crate) idle_agent_mib: f64,
    /// Number of functions measured, per type.
    pub(crate) functions: usize,
    /// By type, with a function that was called once.
    pub(crate) with_function_mib: BTreeMap<String, f64>,
    /// The node itself.
    pub(crate) node_mib: f64,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Memory> {
    let fixture = Fixture::start(Way::Direct, plan.warm_agents).await?;
    let node = fixture.node.id().context("the node has ended")?;
    let agents = plan.warm_agents as f64;
    let idle = memory_of_agents(node) / agents;
    let mut with_function = BTreeMap::new();
    for (name, kind, bytes) in functions() {
        let base = fixture.deployment(name, kind, &bytes).await?;
        let mut started = Vec::new();
        for number in 0..plan.idle_functions {
            let mut deployment = base.clone();
            deployment.name = format!("{name}-{number}").parse()?;
            deployment.triggers = vec![deployment.name.to_string()];
            fixture.warm(1).await?;
            started.push(fixture.deploy(&deployment).await?);
            let called: Result<_, CallError> = fixture.client.call(deployment.name.as_str(), "x".into(), TIMEOUT).await;
            called?;
        }
        fixture.warm(plan.warm_agents).await?;
        let all = memory_of_agents(node);
        with_function.insert(name.to_owned(), (all - idle * agents) / plan.idle_functions as f64);
        for started in &started {
            fixture.stop(started).await?;
        }
    }
    let node_mib = memory(node);
    fixture.end().await?;
    Ok(Memory {
        agents: plan.warm_agents,
        idle_agent_mib: idle,
        functions: plan.idle_functions,
        with_function_mib: with_function,
        node_mib,
    })
}

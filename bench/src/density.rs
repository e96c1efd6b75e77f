//! Many functions on one agent that they share: how long it takes to deploy them, what each costs while nobody calls it, what the first
//! call of one that was unloaded costs, and how long the node takes to tell of them all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use nex_client::call::CallError;
use serde::Serialize;

use crate::fixture::{Fixture, Way, functions};
use crate::plan::{Plan, TIMEOUT};
use crate::processes::{all_memory_of_agents, memory};

/// Deploys under way at once: as many as a node takes of one issuer.
const CONCURRENT_DEPLOYS: usize = 16;
/// After this time without a call a script is unloaded, and a moment more.
const UNLOADED: Duration = Duration::from_secs(36);
/// Times the node is asked what it runs.
const ASKED: usize = 10;
/// Functions whose calls are timed.
const CALLED: usize = 50;

/// Functions of one type on a shared agent.
#[derive(Debug, Serialize)]
pub(crate) struct Density {
    pub(crate) name: String,
    pub(crate) functions: usize,
    /// From the first request to the last reply.
    pub(crate) deploy_seconds: f64,
    /// Anonymous memory and images in memory, each function's part, of the agent and of the node, KiB.
    pub(crate) agent_kib: f64,
    pub(crate) node_kib: f64,
    /// Calls of functions that had not been called for long, and the same again at once, µs at the median.
    pub(crate) first_call_us: f64,
    pub(crate) next_call_us: f64,
    /// The node told of itself, and of all of them, as `nex node info` and `nex ps` ask; ms at the median.
    pub(crate) info_ms: f64,
    pub(crate) ps_ms: f64,
}

pub(crate) async fn measure(plan: &Plan) -> Result<Vec<Density>> {
    let mut measured = Vec::new();
    for (name, kind, bytes) in functions() {
        let fixture = Fixture::start(Way::Shared, 1).await?;
        let node = fixture.node.id().context("the node has ended")?;
        let base = fixture.deployment(name, kind, &bytes).await?;
        let named = |number: usize| -> Result<_> {
            let mut deployment = base.clone();
            deployment.name = format!("{name}-{number}").parse()?;
            deployment.triggers = vec![deployment.name.to_string()];
            Ok(deployment)
        };
        // The agent, and all that is paid once; of what was compiled from the artifact there is a copy then.
        fixture.deploy(&named(0)?).await?;
        call(&fixture, name, 0).await?;
        tokio::time::sleep(UNLOADED).await;
        let before = (all_memory_of_agents(node), memory(node));
        let deployments = (1..plan.shared_functions).map(named).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        let deployed =
            stream::iter(&deployments).map(|deployment| fixture.deploy(deployment)).buffer_unordered(CONCURRENT_DEPLOYS);
        let deployed: Vec<_> = deployed.try_collect().await?;
        let deploy_seconds = began.elapsed().as_secs_f64();
        for number in 1..plan.shared_functions {
            call(&fixture, name, number).await?;
        }
        tokio::time::sleep(UNLOADED).await;
        let after = (all_memory_of_agents(node), memory(node));
        let each = |before: f64, after: f64| (after - before) * 1024.0 / deployed.len() as f64;
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for number in 0..CALLED.min(plan.shared_functions) {
            first.push(call(&fixture, name, number).await?);
            next.push(call(&fixture, name, number).await?);
        }
        let (mut infos, mut lists) = (Vec::new(), Vec::new());
        for _ in 0..ASKED {
            infos.push(info(&fixture).await?);
            lists.push(ps(&fixture, plan.shared_functions).await?);
        }
        measured.push(Density {
            name: name.to_owned(),
            functions: plan.shared_functions,
            deploy_seconds,
            agent_kib: each(before.0, after.0),
            node_kib: each(before.1, after.1),
            first_call_us: median(first),
            next_call_us: median(next),
            info_ms: median(infos) / 1e3,
            ps_ms: median(lists) / 1e3,
        });
        fixture.end().await?;
    }
    Ok(measured)
}

/// Calls a function; how long that took.
async fn call(fixture: &Fixture, name: &str, number: usize) -> Result<Duration> {
    let began = Instant::now();
    let called: Result<_, CallError> = fixture.client.call(&format!("{name}-{number}"), "x".into(), TIMEOUT).await;
    called?;
    Ok(began.elapsed())
}

/// Asks the node what it is and runs; how long that took.
async fn info(fixture: &Fixture) -> Result<Duration> {
    let began = Instant::now();
    fixture.client.info(fixture.deployer.node()).await?;
    Ok(began.elapsed())
}

/// Asks for all workloads until the last one has been told; how long that took.
async fn ps(fixture: &Fixture, expected: usize) -> Result<Duration> {
    let began = Instant::now();
    let found = fixture.client.workloads(None, TIMEOUT).await?;
    ensure!(found.len() == expected, "{} workloads of {expected} were told", found.len());
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

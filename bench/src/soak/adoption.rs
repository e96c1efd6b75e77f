//! How long a node that was killed takes to have all its workloads back: from the start of its next process to the answer that says so.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use nex_client::deploy::Deployment;
use nex_protocol::control::WorkloadSummary;
use nex_protocol::deploy::WorkloadType;

use super::host::left_of;
use crate::fixture::{Fixture, Way};
use crate::plan::TIMEOUT;
use crate::processes::memory;

/// Deploys under way at once.
const CONCURRENT: usize = 8;
/// A service that only waits.
const IDLE: &str = "#!/bin/sh\nexec sleep 100000\n";
/// How often the node is killed.
const KILLS: usize = 3;

/// Workloads for which the usual network has room, and one for more.
const USUAL: usize = 200;
const LARGE: &str = "10.213.0.0/20";

/// Gives what did not come out as promised.
pub(super) async fn run(workloads: usize) -> Result<Vec<String>> {
    let subnet = (workloads > USUAL).then_some(LARGE);
    let mut fixture = Fixture::start_in(Way::Direct, 2, subnet).await?;
    let service = fixture.deployment("idle", WorkloadType::Native, IDLE.as_bytes()).await?;
    let named = |number: usize| anyhow::Ok(Deployment { name: format!("idle-{number}").parse()?, ..service.clone() });
    let deployments = (0..workloads).map(named).collect::<Result<Vec<_>>>()?;
    let deployed = stream::iter(&deployments).map(|deployment| fixture.deploy(deployment)).buffer_unordered(CONCURRENT);
    deployed.try_collect::<Vec<_>>().await?;
    println!("\n{workloads} services of a node that is killed\n");
    let mut wrong = Vec::new();
    for _ in 0..KILLS {
        fixture.kill_node().await?;
        let began = Instant::now();
        fixture.start_node()?;
        let mut back = Vec::new();
        let end = began + TIMEOUT;
        while back.len() < workloads && Instant::now() < end {
            back = running(&fixture, &service).await;
        }
        let (took, restarts) = (began.elapsed(), back.iter().map(|it| it.restarts).sum::<u32>());
        let node = fixture.node.id().context("the node has ended")?;
        println!(
            "  {} run, {restarts} were started again, {:.2} s; the node has {:.1} MiB",
            back.len(),
            took.as_secs_f64(),
            memory(node)
        );
        if back.len() < workloads || restarts > 0 {
            wrong.push(format!("{} of {workloads} run after the node was killed, {restarts} were started again", back.len()));
        }
    }
    let (node, state_dir) = (fixture.deployer.node().clone(), fixture.args.state_dir.clone());
    fixture.end().await?;
    wrong.extend(left_of(&node, &state_dir).await);
    Ok(wrong)
}

/// Those that run, as the node says without being waited for.
async fn running(fixture: &Fixture, service: &Deployment) -> Vec<WorkloadSummary> {
    let found = fixture.client.workloads(None, super::LOOK).await.unwrap_or_default();
    let of_it = |it: &WorkloadSummary| it.state == "running" && it.r#type == service.r#type.to_string();
    found.into_iter().map(|running| running.workload).filter(of_it).collect()
}

//! Deploys and stops by the thousand: what the node and its host have more of afterwards.
#![expect(clippy::print_stdout, reason = "the report of a program for the terminal")]

use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, stream};
use nex_client::deploy::Deployment;
use nex_protocol::deploy::WorkloadType;

use super::host::{Usage, left_of};
use crate::fixture::{Fixture, Way, functions};
use crate::plan::TIMEOUT;

/// Deploys under way at once.
const CONCURRENT: usize = 4;
/// Rows of the table.
const ROWS: usize = 10;
/// Errors that are shown.
const SHOWN: usize = 5;
/// A service that only waits.
const IDLE: &str = "#!/bin/sh\nexec sleep 100000\n";

/// Gives what did not come out as promised.
pub(super) async fn run(cycles: usize) -> Result<Vec<String>> {
    let fixture = Fixture::start(Way::Direct, CONCURRENT).await?;
    let pid = fixture.node.id().context("the node has ended")?;
    let mut deployments = vec![fixture.deployment("idle", WorkloadType::Native, IDLE.as_bytes()).await?];
    for (name, kind, bytes) in functions() {
        deployments.push(fixture.deployment(name, kind, &bytes).await?);
    }
    println!("\n{cycles} deploys and stops of a script, a Wasm and a JavaScript function in turn, {CONCURRENT} at once\n");
    println!(
        "  {:>7} {:>6} {:>9} {:>12} {:>8} {:>8} {:>10} {:>8} {:>6} {:>9}",
        "cycles", "s", "node MiB", "descriptors", "threads", "bus MiB", "processes", "devices", "files", "disk KiB"
    );
    let (began, mut done, mut wrong) = (Instant::now(), 0, Vec::new());
    // The first row is of a node that has done everything once.
    for size in std::iter::once(deployments.len()).chain(std::iter::repeat_n(cycles.div_ceil(ROWS), ROWS)) {
        let batch = stream::iter(done..done + size).map(|number| cycle(&fixture, &deployments, number));
        let failed: Vec<String> = batch
            .buffer_unordered(CONCURRENT)
            .filter_map(async |cycled| cycled.err().map(|error| format!("{error:#}")))
            .collect()
            .await;
        wrong.extend(failed);
        done += size;
        fixture.warm(CONCURRENT).await?;
        let usage = Usage::of(fixture.deployer.node(), pid, &fixture.args.state_dir);
        println!(
            "  {done:>7} {:>6.0} {:>9.1} {:>12} {:>8} {:>8.1} {:>10} {:>8} {:>6} {:>9}",
            began.elapsed().as_secs_f64(),
            usage.node_mib,
            usage.node_descriptors,
            usage.node_threads,
            usage.bus_mib,
            usage.processes,
            usage.devices,
            usage.files,
            usage.disk_kib,
        );
    }
    let mut report: Vec<String> = wrong.iter().take(SHOWN).map(|error| format!("a cycle failed: {error}")).collect();
    if wrong.len() > SHOWN {
        report.push(format!("{} more cycles failed", wrong.len() - SHOWN));
    }
    let (node, state_dir) = (fixture.deployer.node().clone(), fixture.args.state_dir.clone());
    fixture.end().await?;
    report.extend(left_of(&node, &state_dir).await);
    Ok(report)
}

async fn cycle(fixture: &Fixture, deployments: &[Deployment], number: usize) -> Result<()> {
    let mut deployment = deployments.get(number % deployments.len()).context("nothing to deploy")?.clone();
    deployment.name = format!("{}-{number}", deployment.name).parse()?;
    if deployment.r#type.is_function() {
        deployment.triggers = vec![deployment.name.to_string()];
    }
    let started = fixture.deploy(&deployment).await?;
    if deployment.r#type.is_function() {
        fixture.client.call(&started.name, "x".into(), TIMEOUT).await?;
    }
    fixture.stop(&started).await
}

//! How long a deploy takes when the artifact is cached and an agent is warm: from the request to the reply.

use std::time::Instant;

use anyhow::Result;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::dist_binary;
use serde::Serialize;

use crate::load::Times;
use crate::plan::Plan;
use crate::world::{Way, World, functions};

/// Deploys of one type.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) deploy: Times,
    pub(crate) stop: Times,
}

pub(crate) async fn measure(plan: &Plan, way: Way) -> Result<Vec<Row>> {
    let world = World::start(way, 1).await?;
    // In a guest the server has another address, which the service would not find.
    let program = if way == Way::Direct { "echo-service" } else { "bench-idle" };
    let service = std::fs::read(dist_binary(program))?;
    let native = [("native-service", WorkloadType::Native, service)];
    let mut rows = Vec::new();
    for (name, kind, bytes) in native.into_iter().chain(functions()) {
        let mut deployment = world.deployment(name, kind, &bytes).await?;
        deployment.environment.insert("NATS_URL".into(), world.url());
        let (mut deploys, mut stops) = (Vec::new(), Vec::new());
        // The first one fetches and compiles; it does not count.
        for count in 0..=plan.deploys {
            world.warm(1).await?;
            let began = Instant::now();
            let started = world.deploy(&deployment).await?;
            let deployed = began.elapsed();
            let began = Instant::now();
            world.stop(&started).await?;
            if count > 0 {
                deploys.push(deployed);
                stops.push(began.elapsed());
            }
        }
        rows.push(Row {
            what: format!("{name}, {} KiB", bytes.len() / 1024),
            deploy: Times::of(deploys),
            stop: Times::of(stops),
        });
    }
    world.end().await?;
    Ok(rows)
}

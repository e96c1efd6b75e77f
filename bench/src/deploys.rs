//! Duration of a deploy, from request to reply, with a cached artifact and a warm agent.

use std::time::Instant;

use anyhow::Result;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::dist_binary;
use serde::Serialize;

use crate::fixture::{Fixture, Way, functions};
use crate::load::Times;
use crate::plan::Plan;

/// Deploys of one type.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) deploy: Times,
    pub(crate) stop: Times,
}

pub(crate) async fn measure(plan: &Plan, way: Way) -> Result<Vec<Row>> {
    let fixture = Fixture::start(way, 1).await?;
    // In a guest the server has another address, which the echo service does not know.
    let program = if way == Way::Direct { "echo-service" } else { "bench-idle" };
    let service = std::fs::read(dist_binary(program))?;
    let native = [("native-service", WorkloadType::Native, service)];
    let mut rows = Vec::new();
    for (name, kind, bytes) in native.into_iter().chain(functions()) {
        let mut deployment = fixture.deployment(name, kind, &bytes).await?;
        deployment.environment.insert("NATS_URL".into(), fixture.url());
        let (mut deploys, mut stops) = (Vec::new(), Vec::new());
        // Do not count the first one: it fetches and compiles.
        for count in 0..=plan.deploys {
            fixture.warm(1).await?;
            let began = Instant::now();
            let started = fixture.deploy(&deployment).await?;
            let deployed = began.elapsed();
            let began = Instant::now();
            fixture.stop(&started).await?;
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
    fixture.end().await?;
    Ok(rows)
}

//! Measures starts: a bare machine, a cold boot up to the handshake, a restore up to the handshake.

use anyhow::Result;
use serde::Serialize;

use super::bare::Bare;
use super::fixture::AgentFixture;
use super::steps;
use crate::load::{Summary, Times};
use crate::plan::Plan;

/// Restores per boot; they are short.
const RESTORES: usize = 3;

/// Times of each kind of start, and their ratios within a round.
#[derive(Debug, Serialize)]
pub(crate) struct Boots {
    /// From the start of the monitor to its end.
    pub(crate) bare: Times,
    /// From the start to the handshake.
    pub(crate) cold: Times,
    pub(crate) restored: Times,
    /// Processor time of the monitor, ms.
    pub(crate) cold_cpu_ms: Summary,
    pub(crate) restored_cpu_ms: Summary,
    pub(crate) cold_to_bare: Summary,
    pub(crate) restored_to_cold: Summary,
    pub(crate) cold_steps: Vec<Step>,
    pub(crate) restored_steps: Vec<Step>,
}

/// One step of a start, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) ms: Summary,
    #[serde(skip)]
    all: Vec<f64>,
}

pub(crate) async fn measure(plan: &Plan, snapshots: &AgentFixture) -> Result<Boots> {
    let cold_fixture = Box::pin(AgentFixture::open(snapshots.monitor, false)).await?;
    let mut bare = Bare::prepare(&cold_fixture).await?;
    let outcome = rounds(plan, snapshots, &cold_fixture, &mut bare).await;
    bare.close().await;
    cold_fixture.close().await;
    outcome
}

async fn rounds(plan: &Plan, snapshots: &AgentFixture, cold_fixture: &AgentFixture, machine: &mut Bare) -> Result<Boots> {
    let (cold_proxy, proxy) = (cold_fixture.bus_proxy().await?, snapshots.bus_proxy().await?);
    let (mut bare, mut cold, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_bare, mut to_cold) = (Vec::new(), Vec::new());
    let (mut cold_cpu, mut restored_cpu) = (Vec::new(), Vec::new());
    let (mut cold_steps, mut restored_steps) = (Vec::new(), Vec::new());
    for _ in 0..plan.boots {
        let empty = machine.boot().await?;
        let agent = cold_fixture.agent(&cold_proxy.url()).await?;
        add(&mut cold_steps);
        let booted = agent.took;
        cold_cpu.push(agent.processor.as_secs_f64() * 1e3);
        cold_fixture.stop(agent).await?;
        let mut these = Vec::new();
        for _ in 0..RESTORES {
            let agent = snapshots.agent(&proxy.url()).await?;
            add(&mut restored_steps);
            these.push(agent.took);
            restored_cpu.push(agent.processor.as_secs_f64() * 1e3);
            snapshots.stop(agent).await?;
        }
        to_bare.push(booted.as_secs_f64() / empty.as_secs_f64());
        to_cold.push(Summary::of(these.iter().map(std::time::Duration::as_secs_f64)).median / booted.as_secs_f64());
        bare.push(empty);
        cold.push(booted);
        restored.extend(these);
    }
    Ok(Boots {
        bare: Times::of(bare),
        cold: Times::of(cold),
        restored: Times::of(restored),
        cold_cpu_ms: Summary::of(cold_cpu),
        restored_cpu_ms: Summary::of(restored_cpu),
        cold_to_bare: Summary::of(to_bare),
        restored_to_cold: Summary::of(to_cold),
        cold_steps: finished(cold_steps),
        restored_steps: finished(restored_steps),
    })
}

/// Adds the steps of the last agent.
fn add(steps: &mut Vec<Step>) {
    for (name, ms) in steps::taken() {
        match steps.iter_mut().find(|step| step.name == name) {
            Some(step) => step.all.push(ms),
            None => steps.push(Step { name, ms: Summary::of([]), all: vec![ms] }),
        }
    }
}

fn finished(mut steps: Vec<Step>) -> Vec<Step> {
    steps.iter_mut().for_each(|step| step.ms = Summary::of(step.all.iter().copied()));
    steps
}

//! The way to a handshake: with nothing in the machine, from the kernel's first instruction, from a snapshot.

use anyhow::Result;
use serde::Serialize;

use super::bare::Bare;
use super::lab::Lab;
use super::steps;
use crate::load::{Spread, Times};
use crate::plan::Plan;

/// Restores for each boot: they are short.
const RESTORES: usize = 3;

/// What each way takes, and what they are to each other in the same round.
#[derive(Debug, Serialize)]
pub(crate) struct Boots {
    /// From the start of the monitor to its end.
    pub(crate) bare: Times,
    /// From nothing to the handshake.
    pub(crate) cold: Times,
    pub(crate) restored: Times,
    /// The monitor's time on processors, ms.
    pub(crate) cold_cpu_ms: Spread,
    pub(crate) restored_cpu_ms: Spread,
    pub(crate) cold_to_bare: Spread,
    pub(crate) restored_to_cold: Spread,
    pub(crate) cold_steps: Vec<Step>,
    pub(crate) restored_steps: Vec<Step>,
}

/// One step on the way, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) ms: Spread,
    #[serde(skip)]
    all: Vec<f64>,
}

pub(crate) async fn measure(plan: &Plan, snapshots: &Lab) -> Result<Boots> {
    let cold_lab = Box::pin(Lab::open(snapshots.monitor, false)).await?;
    let mut nothing = Bare::prepare(&cold_lab).await?;
    let outcome = rounds(plan, snapshots, &cold_lab, &mut nothing).await;
    nothing.close().await;
    cold_lab.close().await;
    outcome
}

async fn rounds(plan: &Plan, snapshots: &Lab, cold_lab: &Lab, nothing: &mut Bare) -> Result<Boots> {
    let (cold_gate, gate) = (cold_lab.gate().await?, snapshots.gate().await?);
    let (mut bare, mut cold, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_bare, mut to_cold) = (Vec::new(), Vec::new());
    let (mut cold_cpu, mut restored_cpu) = (Vec::new(), Vec::new());
    let (mut cold_steps, mut restored_steps) = (Vec::new(), Vec::new());
    for _ in 0..plan.boots {
        let empty = nothing.boot().await?;
        let agent = cold_lab.agent(&cold_gate.url()).await?;
        add(&mut cold_steps);
        let booted = agent.took;
        cold_cpu.push(agent.processor.as_secs_f64() * 1e3);
        cold_lab.stop(agent).await?;
        let mut these = Vec::new();
        for _ in 0..RESTORES {
            let agent = snapshots.agent(&gate.url()).await?;
            add(&mut restored_steps);
            these.push(agent.took);
            restored_cpu.push(agent.processor.as_secs_f64() * 1e3);
            snapshots.stop(agent).await?;
        }
        to_bare.push(booted.as_secs_f64() / empty.as_secs_f64());
        to_cold.push(Spread::of(these.iter().map(std::time::Duration::as_secs_f64)).median / booted.as_secs_f64());
        bare.push(empty);
        cold.push(booted);
        restored.extend(these);
    }
    Ok(Boots {
        bare: Times::of(bare),
        cold: Times::of(cold),
        restored: Times::of(restored),
        cold_cpu_ms: Spread::of(cold_cpu),
        restored_cpu_ms: Spread::of(restored_cpu),
        cold_to_bare: Spread::of(to_bare),
        restored_to_cold: Spread::of(to_cold),
        cold_steps: finished(cold_steps),
        restored_steps: finished(restored_steps),
    })
}

/// Adds the steps of the last agent.
fn add(steps: &mut Vec<Step>) {
    for (name, ms) in steps::taken() {
        match steps.iter_mut().find(|step| step.name == name) {
            Some(step) => step.all.push(ms),
            None => steps.push(Step { name, ms: Spread::of([]), all: vec![ms] }),
        }
    }
}

fn finished(mut steps: Vec<Step>) -> Vec<Step> {
    steps.iter_mut().for_each(|step| step.ms = Spread::of(step.all.iter().copied()));
    steps
}

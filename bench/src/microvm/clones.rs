//! Many agents, each in a clone: how fast they come, what memory they take, how fast they go.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use nex_node::pool::state::PARALLEL;
use serde::Serialize;

use super::lab::{Agent, Lab};
use crate::load::{Spread, Times};
use crate::plan::Plan;
use crate::processes::{Mapped, monitor_memory, processor_time};

/// At how many clones their memory is looked at.
const COUNTS: [usize; 3] = [1, 4, 8];
/// Until what a new clone still does is done.
const SETTLE: Duration = Duration::from_secs(2);
/// How long they are watched doing nothing.
const IDLE: Duration = Duration::from_secs(4);

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Clones {
    pub(crate) memory: Vec<Memory>,
    /// Time to nothing left.
    pub(crate) stop: Times,
    /// As many at once as a pool makes.
    pub(crate) at_once: usize,
    pub(crate) agents: usize,
    pub(crate) agents_per_second: Spread,
    pub(crate) refills: usize,
}

/// Of the monitors' processes, MiB for each.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) clones: usize,
    /// Its part of what is shared with the others included.
    pub(crate) pss_mib: f64,
    /// What is its alone.
    pub(crate) private_mib: f64,
    pub(crate) rss_mib: f64,
    /// Of one of the host's processors, for each.
    pub(crate) idle_cpu_percent: f64,
}

pub(crate) async fn measure(plan: &Plan, lab: &Lab) -> Result<Clones> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut memory = Vec::new();
    for count in COUNTS {
        agents.extend(make(lab, count - agents.len()).await?);
        tokio::time::sleep(SETTLE).await;
        memory.push(look(&agents).await);
    }
    let mut stops = Vec::new();
    for agent in agents {
        stops.push(lab.stop(agent).await?);
    }
    let most = COUNTS.iter().copied().max().unwrap_or_default();
    let mut rates = Vec::new();
    for _ in 0..plan.refills {
        let began = Instant::now();
        let agents = make(lab, most).await?;
        rates.push(most as f64 / began.elapsed().as_secs_f64());
        for agent in agents {
            stops.push(lab.stop(agent).await?);
        }
    }
    let agents_per_second = Spread::of(rates);
    Ok(Clones { memory, stop: Times::of(stops), at_once: PARALLEL, agents: most, agents_per_second, refills: plan.refills })
}

async fn make(lab: &Lab, count: usize) -> Result<Vec<Agent>> {
    stream::iter(0..count).map(|_| lab.agent(lab.bus_url())).buffer_unordered(PARALLEL).try_collect().await
}

async fn look(agents: &[Agent]) -> Memory {
    let count = agents.len().max(1) as f64;
    let pids: Vec<u32> = agents.iter().map(|agent| agent.sandbox.record().leader.pid.unsigned_abs()).collect();
    let spent = || pids.iter().map(|pid| processor_time(*pid)).sum::<Duration>();
    let before = spent();
    tokio::time::sleep(IDLE).await;
    let idle = spent().saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    let each: Vec<Mapped> = pids.iter().map(|pid| monitor_memory(*pid)).collect();
    let mean = |of: fn(&Mapped) -> f64| each.iter().map(of).sum::<f64>() / count;
    Memory {
        clones: agents.len(),
        pss_mib: mean(|it| it.pss),
        private_mib: mean(|it| it.private),
        rss_mib: mean(|it| it.rss),
        idle_cpu_percent: idle * 100.0 / count,
    }
}

//! Measures many agents, each in a clone: start rate, memory, stop time.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use nex_node::pool::state::PARALLEL;
use serde::Serialize;

use super::fixture::{Agent, AgentFixture};
use crate::load::{Summary, Times};
use crate::plan::Plan;
use crate::processes::{Mapped, monitor_memory, processor_time};

/// Numbers of clones at which memory is measured.
const COUNTS: [usize; 3] = [1, 4, 8];
/// Time for a new clone to become idle.
const SETTLE: Duration = Duration::from_secs(2);
/// How long idle clones are measured.
const IDLE: Duration = Duration::from_secs(4);

/// The results.
#[derive(Debug, Serialize)]
pub(crate) struct Clones {
    pub(crate) memory: Vec<Memory>,
    /// Time until everything of an agent was removed.
    pub(crate) stop: Times,
    /// Created as concurrently as by a pool.
    pub(crate) at_once: usize,
    pub(crate) agents: usize,
    pub(crate) agents_per_second: Summary,
    pub(crate) refills: usize,
}

/// Memory of the monitors' processes, MiB per clone.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) clones: usize,
    /// Including its share of shared memory.
    pub(crate) pss_mib: f64,
    /// Its private memory.
    pub(crate) private_mib: f64,
    pub(crate) rss_mib: f64,
    /// Load per clone, of one processor of the host.
    pub(crate) idle_cpu_percent: f64,
}

pub(crate) async fn measure(plan: &Plan, fixture: &AgentFixture) -> Result<Clones> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut memory = Vec::new();
    for count in COUNTS {
        agents.extend(make(fixture, count - agents.len()).await?);
        tokio::time::sleep(SETTLE).await;
        memory.push(measure_memory(&agents).await);
    }
    let mut stops = Vec::new();
    for agent in agents {
        stops.push(fixture.stop(agent).await?);
    }
    let most = COUNTS.iter().copied().max().unwrap_or_default();
    let mut rates = Vec::new();
    for _ in 0..plan.refills {
        let began = Instant::now();
        let agents = make(fixture, most).await?;
        rates.push(most as f64 / began.elapsed().as_secs_f64());
        for agent in agents {
            stops.push(fixture.stop(agent).await?);
        }
    }
    let agents_per_second = Summary::of(rates);
    Ok(Clones { memory, stop: Times::of(stops), at_once: PARALLEL, agents: most, agents_per_second, refills: plan.refills })
}

async fn make(fixture: &AgentFixture, count: usize) -> Result<Vec<Agent>> {
    stream::iter(0..count).map(|_| fixture.agent(fixture.bus_url())).buffer_unordered(PARALLEL).try_collect().await
}

async fn measure_memory(agents: &[Agent]) -> Memory {
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

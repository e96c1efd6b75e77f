//! What is true outside the node, and what the node has said: what the promises are checked against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crate::agents::AgentRouter;

/// What is true outside the node, and what the node has said.
pub(super) struct World {
    pub(super) rng: StdRng,
    /// The workloads, each with what runs it.
    pub(super) journal: BTreeMap<WorkloadId, (AgentId, InstanceId)>,
    /// What runs where, in truth.
    pub(super) running: BTreeMap<WorkloadId, AgentId>,
    /// The agents there are, and what ends them.
    pub(super) agents: BTreeMap<AgentId, CancellationToken>,
    /// The router of the node's process, while there is one.
    pub(super) router: Option<AgentRouter>,
    pub(super) adopted: u32,
    pub(super) deployed: BTreeMap<WorkloadId, u32>,
    pub(super) undeployed: BTreeMap<WorkloadId, u32>,
    pub(super) calls_sent: u64,
    /// Until something was stopped or killed while it reported.
    pub(super) calls_are_certain: bool,
    pub(super) calls_told: u64,
    pub(super) serial: u32,
    /// From now on, what starts goes on running.
    pub(super) is_quiet: bool,
    /// Promises that were broken, found where a panic would be caught.
    pub(super) violations: Vec<String>,
}

pub(super) type Shared = Arc<Mutex<World>>;

pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    pub(super) fn new(seed: u64) -> Shared {
        Arc::new(Mutex::new(Self {
            rng: StdRng::seed_from_u64(seed),
            journal: BTreeMap::new(),
            running: BTreeMap::new(),
            agents: BTreeMap::new(),
            router: None,
            adopted: 0,
            deployed: BTreeMap::new(),
            undeployed: BTreeMap::new(),
            calls_sent: 0,
            calls_are_certain: true,
            calls_told: 0,
            serial: 0,
            is_quiet: false,
            violations: Vec::new(),
        }))
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub(super) fn pause(&mut self, max_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=max_ms))
    }

    /// Ends an agent, and with it what it runs.
    pub(super) fn end(&mut self, agent: &AgentId) {
        self.running.retain(|_, it| it != agent);
        if let Some(lost) = self.agents.remove(agent) {
            lost.cancel();
        }
    }

    pub(super) fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }
}

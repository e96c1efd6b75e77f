//! What is true outside the node, and what the node has said: what the promises are checked against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nex_protocol::deploy::Restart;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::rules::Rules;
use crate::agents::AgentRouter;
use crate::journal::LifeRecord;

/// What is true outside the node, and what the node has said.
pub(super) struct World {
    pub(super) rng: StdRng,
    /// The workloads.
    pub(super) journal: BTreeMap<WorkloadId, Entry>,
    /// How each is kept.
    pub(super) policies: BTreeMap<WorkloadId, Policy>,
    /// How often a start of each was written down.
    pub(super) recorded: BTreeMap<WorkloadId, u32>,
    /// Agents whose health check has passed, and those that said that it fails.
    pub(super) well: BTreeSet<AgentId>,
    pub(super) sick: BTreeSet<AgentId>,
    /// What runs where, in truth.
    pub(super) running: BTreeMap<WorkloadId, AgentId>,
    /// The agents there are, and what ends them.
    pub(super) agents: BTreeMap<AgentId, CancellationToken>,
    /// The router of the node's process, while there is one.
    pub(super) router: Option<AgentRouter>,
    pub(super) adopted: u32,
    /// Workloads that somebody stopped, and those of a node that drained.
    pub(super) let_go: BTreeSet<WorkloadId>,
    pub(super) deployed: BTreeMap<WorkloadId, u32>,
    pub(super) undeployed: BTreeMap<WorkloadId, u32>,
    pub(super) calls_sent: u64,
    /// Until something was stopped or killed while it reported.
    pub(super) calls_are_certain: bool,
    pub(super) calls_told: u64,
    pub(super) serial: u32,
    /// From now on, nothing fails, and what starts goes on running.
    pub(super) is_quiet: bool,
    /// Promises that were broken, found where a panic would be caught.
    pub(super) violations: Vec<String>,
}

/// A workload in the journal.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What runs it, if something does.
    pub(super) running: Option<(AgentId, InstanceId)>,
    pub(super) life: LifeRecord,
    /// When that was written.
    pub(super) at: Instant,
}

/// How a workload is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) rules: Rules,
    /// When a job is over at the latest.
    pub(super) deadline: Option<Instant>,
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
            policies: BTreeMap::new(),
            recorded: BTreeMap::new(),
            well: BTreeSet::new(),
            sick: BTreeSet::new(),
            running: BTreeMap::new(),
            agents: BTreeMap::new(),
            router: None,
            adopted: 0,
            let_go: BTreeSet::new(),
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

    /// Makes up how a workload is kept.
    pub(super) fn policy(&mut self, id: &WorkloadId) -> Policy {
        let restart = match self.rng.random_range(0..3) {
            0 => Restart::Always,
            1 => Restart::OnFailure,
            _ => Restart::Never,
        };
        let mut policy = Policy { rules: Rules { seed: self.rng.random(), ..Rules::new(restart) }, deadline: None };
        if self.chance(25) {
            policy.rules = Rules { restart: Restart::OnFailure, retries: Some(self.rng.random_range(0..4)), ..policy.rules };
            policy.deadline = self.chance(50).then(|| Instant::now() + self.pause(120_000));
        } else {
            policy.rules.is_gated = self.chance(50);
        }
        self.policies.insert(id.clone(), policy);
        policy
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Whether something goes wrong now; nothing does any more once it is quiet.
    pub(super) fn fault(&mut self, percent: u32) -> bool {
        self.chance(percent) && !self.is_quiet
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

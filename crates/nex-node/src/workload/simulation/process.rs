//! A node process: its drivers and its router, killed and followed by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nex_process::{Deadline, TaskScope};
use nex_protocol::control::ExitCause;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::command::{Command, FirstStart, Status};
use super::super::driver::Driver;
use super::super::outcome::Timeouts;
use super::super::state::State;
use super::runtime::SimulatedRuntime;
use super::world::{Entry, Policy, Shared, lock};
use crate::agents::AgentRouter;

const DEPLOY: Duration = Duration::from_secs(10);
const HEALTH: Duration = Duration::from_secs(30);

/// A node process: its drivers, its router.
pub(super) struct Process {
    pub(super) world: Shared,
    pub(super) router: AgentRouter,
    /// Where agents live, beyond this process.
    pub(super) host: Arc<TaskScope>,
    pub(super) drivers: TaskScope,
    pub(super) handles: BTreeMap<WorkloadId, Handle>,
    /// Cancelled when it is killed.
    pub(super) killed: CancellationToken,
}

pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
}

impl Process {
    pub(super) fn new(world: &Shared, host: &Arc<TaskScope>) -> Self {
        let router = AgentRouter::default();
        lock(world).router = Some(router.clone());
        Self {
            world: Arc::clone(world),
            router,
            host: Arc::clone(host),
            drivers: TaskScope::new("drivers"),
            handles: BTreeMap::new(),
            killed: CancellationToken::new(),
        }
    }

    /// The next process after a crash: agents that the journal does not know are ended, the others are left to their drivers.
    pub(super) fn after_a_crash(world: &Shared, host: &Arc<TaskScope>) -> (Self, BTreeSet<WorkloadId>) {
        let mut process = Self::new(world, host);
        let left = lock(world).journal.clone();
        let known = |agent: &AgentId| left.values().any(|entry| entry.running.as_ref().is_some_and(|(known, _)| known == agent));
        let unknown: Vec<AgentId> = lock(world).agents.keys().filter(|agent| !known(agent)).cloned().collect();
        unknown.iter().for_each(|agent| lock(world).end(agent));
        for (id, Entry { running, life, at }) in &left {
            let (Policy { rules, .. }, found) = {
                let world = lock(world);
                (world.policies[id], running.clone().filter(|(agent, _)| world.agents.contains_key(agent)))
            };
            // As in `workload::start`.
            let state = match life.backing_off_since {
                Some(_) => State { announced: life.announced, ..State::backing_off(rules) },
                None if found.is_some() || rules.retries.is_some() => State::left_running(rules),
                None => State::restored(rules),
            };
            let waited = life.backing_off_since.map_or(Duration::ZERO, |_| at.elapsed());
            drop(process.start(id, state.counting(life.restarts, life.streak), found, waited));
        }
        (process, left.into_keys().collect())
    }

    pub(super) fn start(
        &mut self,
        id: &WorkloadId,
        state: State,
        left: Option<(AgentId, InstanceId)>,
        waited: Duration,
    ) -> oneshot::Receiver<FirstStart> {
        let runtime = SimulatedRuntime {
            id: id.clone(),
            world: Arc::clone(&self.world),
            router: self.router.clone(),
            host: Arc::clone(&self.host),
            killed: self.killed.clone(),
            left,
        };
        let (commands, inbox) = mpsc::channel(16);
        let (status, seen) = watch::channel(Status { phase: state.phase, restarts: 0, last_end: None });
        let deadline = lock(&self.world).policies[id].deadline;
        let life = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeouts = Timeouts { deploy: DEPLOY, stop_grace: Duration::from_secs(5), health: HEALTH, life };
        let mut driver = Driver::new(runtime, state, timeouts, Some(Deadline::after(DEPLOY)), status);
        let first = driver.first_start();
        self.drivers.spawn("driver", driver.run(inbox, waited));
        self.handles.insert(id.clone(), Handle { commands, status: seen });
        first
    }

    /// `kill -9`: nothing is told, nothing is written, and what its agents run goes on.
    pub(super) async fn crash(self) {
        lock(&self.world).router = None;
        self.killed.cancel();
        self.drivers.shutdown(Duration::ZERO).await;
    }

    pub(super) async fn stop(&self, id: &WorkloadId) {
        if let Some(handle) = self.handles.get(id) {
            let (done, wait) = oneshot::channel();
            if handle
                .commands
                .send(Command::Stop {
                    reason: "simulated".to_owned(),
                    cause: ExitCause::Stopped,
                    grace: Duration::from_secs(5),
                    done,
                })
                .await
                .is_ok()
            {
                wait.await.ok();
            }
        }
    }
}

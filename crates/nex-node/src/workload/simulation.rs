//! The lifecycle layer under seeded faults and a virtual clock: the real driver and the real router, with agents, a bus and a journal that
//! fail, lose, delay and repeat, and a node that is killed while its agents go on. A failing seed is run again with `NEX_SEED=<n> cargo test -p nex-node simulation`; `NEX_SEEDS` says how many
//! are run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use futures::future::BoxFuture;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::AgentEvent;
use nex_protocol::agent::report::EVENT_SEQUENCE;
use nex_protocol::id::{AgentId, InstanceId, WorkloadId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::command::{Command, Status};
use super::driver::{Driver, End, Ended, Notice, Runtime, Timeouts};
use super::launch_error::LaunchError;
use super::state::{Phase, State};
use crate::agents::AgentRouter;
use crate::agents::inbox::Inbox;
use crate::journal::JournalError;

/// Seeds run where nobody says how many.
const SEEDS: u64 = 2_000;
const TIMEOUTS: Timeouts = Timeouts { deploy: Duration::from_secs(10), stop_grace: Duration::from_secs(5) };
/// Virtual time in which whatever has happened must have been seen.
const SETTLED: Duration = Duration::from_secs(300);

/// What is true outside the node, and what the node has said.
struct World {
    rng: StdRng,
    /// The workloads, each with what runs it.
    journal: BTreeMap<WorkloadId, (AgentId, InstanceId)>,
    /// What runs where, in truth.
    running: BTreeMap<WorkloadId, AgentId>,
    /// The agents there are, and what ends them.
    agents: BTreeMap<AgentId, CancellationToken>,
    /// The router of the node's process, while there is one.
    router: Option<AgentRouter>,
    adopted: u32,
    deployed: BTreeMap<WorkloadId, u32>,
    undeployed: BTreeMap<WorkloadId, u32>,
    calls_sent: u64,
    /// Until something was stopped or killed while it reported.
    calls_are_certain: bool,
    calls_told: u64,
    serial: u32,
    /// From now on, what starts goes on running.
    is_quiet: bool,
    /// Promises that were broken, found where a panic would be caught.
    violations: Vec<String>,
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pause(&mut self, max_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=max_ms))
    }

    /// Ends an agent, and with it what it runs.
    fn end(&mut self, agent: &AgentId) {
        self.running.retain(|_, it| it != agent);
        if let Some(lost) = self.agents.remove(agent) {
            lost.cancel();
        }
    }

    fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }
}

/// A node process: its drivers, its router.
struct Process {
    world: Shared,
    router: AgentRouter,
    /// Where agents live, beyond this process.
    host: Arc<TaskScope>,
    drivers: TaskScope,
    handles: BTreeMap<WorkloadId, Handle>,
    /// Cancelled when it is killed.
    killed: CancellationToken,
}

struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

struct SimulatedRuntime {
    id: WorkloadId,
    world: Shared,
    router: AgentRouter,
    host: Arc<TaskScope>,
    killed: CancellationToken,
    left: Option<(AgentId, InstanceId)>,
}

struct SimulatedInstance {
    agent: AgentId,
    instance: InstanceId,
    inbox: Inbox,
    lost: CancellationToken,
    world: Shared,
    killed: CancellationToken,
}

impl Drop for SimulatedInstance {
    fn drop(&mut self) {
        // A killed node ends nothing.
        if !self.killed.is_cancelled() {
            lock(&self.world).end(&self.agent);
        }
    }
}

impl Runtime for SimulatedRuntime {
    type Instance = SimulatedInstance;

    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<SimulatedInstance, LaunchError>> {
        let (world, router, killed) = (Arc::clone(&self.world), self.router.clone(), self.killed.clone());
        let (agent, instance) = self.left.take().unwrap();
        Box::pin(async move {
            let inbox = router.open(&agent, &instance);
            let lost = lock(&world).agents.get(&agent).cloned().unwrap_or_default();
            let adopted = SimulatedInstance { agent, instance, inbox, lost, world: Arc::clone(&world), killed };
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(12_000), world.chance(10))
            };
            let answered = by.bound(tokio::time::sleep(pause)).await.is_ok() && !fails;
            if answered && lock(&world).agents.contains_key(&adopted.agent) {
                lock(&world).adopted += 1;
                return Ok(adopted);
            }
            Err(LaunchError::Adoption("a fault".into()))
        })
    }

    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<SimulatedInstance, LaunchError>> {
        let (id, world, router, host, killed) =
            (self.id.clone(), Arc::clone(&self.world), self.router.clone(), Arc::clone(&self.host), self.killed.clone());
        Box::pin(async move {
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(12_000), world.chance(20))
            };
            by.bound(tokio::time::sleep(pause)).await.map_err(|_late| LaunchError::Artifact("late".into()))?;
            if fails {
                return Err(LaunchError::Artifact("a fault".into()));
            }
            let (agent, instance) = {
                let mut world = lock(&world);
                let serial = world.serial();
                (AgentId::new(serial), InstanceId::new(serial))
            };
            let inbox = router.open(&agent, &instance);
            let lost = CancellationToken::new();
            {
                let mut world = lock(&world);
                world.agents.insert(agent.clone(), lost.clone());
                if world.running.insert(id.clone(), agent.clone()).is_some() {
                    world.violations.push(format!("{id} runs on two agents"));
                }
            }
            let simulated = SimulatedAgent {
                world: Arc::clone(&world),
                workload: id,
                agent: agent.clone(),
                instance: instance.clone(),
                lost: lost.clone(),
            };
            host.spawn("agent", live(simulated));
            Ok(SimulatedInstance { agent, instance, inbox, lost, world, killed })
        })
    }

    fn record(&self, instance: &SimulatedInstance) -> BoxFuture<'static, Result<(), JournalError>> {
        let (id, world) = (self.id.clone(), Arc::clone(&self.world));
        let running = (instance.agent.clone(), instance.instance.clone());
        Box::pin(async move {
            let (pause, fails) = {
                let mut world = lock(&world);
                (world.pause(50), world.chance(5))
            };
            tokio::time::sleep(pause).await;
            if fails {
                return Err(JournalError::simulated());
            }
            lock(&world).journal.insert(id, running);
            Ok(())
        })
    }

    fn ended<'a>(&'a mut self, instance: &'a mut SimulatedInstance) -> BoxFuture<'a, Ended> {
        let world = Arc::clone(&self.world);
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    Some(event) = instance.inbox.events.recv() => match event {
                        AgentEvent::Exited { code, message } => return Ended::Exited { code, signal: String::new(), message },
                        AgentEvent::Stopped => {}
                        AgentEvent::Calls { succeeded, .. } => lock(&world).calls_told += succeeded,
                    },
                    () = instance.lost.cancelled() => {
                        return Ended::AgentLost { agent: instance.agent.clone(), reason: "lost".into() };
                    }
                }
            }
        })
    }

    fn undeploy(&self, mut instance: SimulatedInstance, grace: Duration) -> BoxFuture<'static, ()> {
        let pause = lock(&self.world).pause(u64::try_from(grace.as_millis()).unwrap());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            while let Ok(event) = instance.inbox.events.try_recv() {
                if let AgentEvent::Calls { succeeded, .. } = event {
                    lock(&instance.world).calls_told += succeeded;
                }
            }
            drop(instance);
        })
    }

    fn release(&self, instance: SimulatedInstance) {
        drop(instance);
    }

    fn tell(&mut self, notice: &Notice<'_>) {
        let mut world = lock(&self.world);
        match notice {
            Notice::Deployed => {
                if !world.journal.contains_key(&self.id) {
                    world.violations.push(format!("{} is announced before it is in the journal", self.id));
                }
                *world.deployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Undeployed { .. } => {
                if world.journal.contains_key(&self.id) {
                    world.violations.push(format!("{} is over and in the journal", self.id));
                }
                *world.undeployed.entry(self.id.clone()).or_default() += 1;
            }
            Notice::Adopted
            | Notice::NotAdopted(_)
            | Notice::StartFailed(_)
            | Notice::AgentLost { .. }
            | Notice::Restarting { .. }
            | Notice::NotRecorded(_) => {}
        }
    }

    fn forget(&mut self, _end: Option<&End>) -> BoxFuture<'static, ()> {
        lock(&self.world).journal.remove(&self.id);
        Box::pin(std::future::ready(()))
    }
}

/// An agent with one instance of a workload.
struct SimulatedAgent {
    world: Shared,
    workload: WorkloadId,
    agent: AgentId,
    instance: InstanceId,
    lost: CancellationToken,
}

/// An agent with one instance, on a bus that loses, delays and repeats: calls, then an exit, or the agent's own death, or neither.
async fn live(it: SimulatedAgent) {
    let (reports, dies, exits, code) = {
        let mut world = lock(&it.world);
        if world.is_quiet {
            return;
        }
        (world.rng.random_range(0..4_u64), world.chance(30), world.chance(50), i32::from(world.chance(60)))
    };
    let mut sequence = 0;
    for report in 0..reports {
        let pause = lock(&it.world).pause(20_000);
        if it.lost.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let succeeded = report + 1;
        let event = AgentEvent::Calls { trigger: "t".into(), succeeded, failed: 0, elapsed_nanos: 0, errors: Vec::new() };
        lock(&it.world).calls_sent += succeeded;
        sequence += 1;
        if it.lost.run_until_cancelled(deliver(&it, sequence, &event)).await.is_none() {
            // It was stopped meanwhile; whether this was heard is not promised.
            lock(&it.world).calls_are_certain = false;
            return;
        }
    }
    if dies {
        lock(&it.world).end(&it.agent);
    } else if exits {
        lock(&it.world).running.remove(&it.workload);
        let exited = AgentEvent::Exited { code, message: String::new() };
        it.lost.run_until_cancelled(deliver(&it, sequence + 1, &exited)).await;
    }
}

/// Sends an event until it is acknowledged, whether or not a node is there, over a bus that loses the event, loses the acknowledgement, or delivers twice.
async fn deliver(it: &SimulatedAgent, sequence: u64, event: &AgentEvent) {
    let mut headers = HeaderMap::new();
    headers.insert(EVENT_SEQUENCE, sequence.to_string());
    let payload = bytes::Bytes::from(serde_json::to_vec(event).unwrap());
    let length = payload.len();
    let message =
        Message { subject: "x".into(), reply: None, payload, headers: Some(headers), status: None, description: None, length };
    loop {
        let (delay, is_lost, repeats, ack_is_lost) = {
            let mut world = lock(&it.world);
            (world.pause(300), world.chance(30), 1 + u32::from(world.chance(30)), world.chance(30))
        };
        tokio::time::sleep(delay).await;
        let router = lock(&it.world).router.clone();
        if let Some(router) = router.filter(|_| !is_lost) {
            let acks: Vec<_> = (0..repeats).map(|_| router.event(&it.agent, &it.instance, &message)).collect();
            if acks.iter().any(Option::is_some) && !ack_is_lost {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Process {
    fn new(world: &Shared, host: &Arc<TaskScope>) -> Self {
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
    fn after_a_crash(world: &Shared, host: &Arc<TaskScope>) -> (Self, BTreeSet<WorkloadId>) {
        let mut process = Self::new(world, host);
        let left = lock(world).journal.clone();
        let unknown: Vec<AgentId> = {
            let world = lock(world);
            world.agents.keys().filter(|agent| left.values().all(|(known, _)| known != *agent)).cloned().collect()
        };
        unknown.iter().for_each(|agent| lock(world).end(agent));
        for (id, (agent, instance)) in &left {
            let (restarts, is_there) = {
                let mut world = lock(world);
                (world.chance(60), world.agents.contains_key(agent))
            };
            let running = is_there.then(|| (agent.clone(), instance.clone()));
            let state = if is_there { State::left_running(restarts) } else { State::restored(restarts) };
            drop(process.start(id, state, running));
        }
        (process, left.into_keys().collect())
    }

    fn start(
        &mut self,
        id: &WorkloadId,
        state: State,
        left: Option<(AgentId, InstanceId)>,
    ) -> tokio::sync::oneshot::Receiver<super::command::FirstStart> {
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
        let mut driver = Driver::new(runtime, state, TIMEOUTS, Some(Deadline::after(TIMEOUTS.deploy)), status);
        let first = driver.first_start();
        self.drivers.spawn("driver", driver.run(inbox));
        self.handles.insert(id.clone(), Handle { commands, status: seen });
        first
    }

    /// `kill -9`: nothing is told, nothing is written, and what its agents run goes on.
    async fn crash(self) {
        lock(&self.world).router = None;
        self.killed.cancel();
        self.drivers.shutdown(Duration::ZERO).await;
    }

    async fn stop(&self, id: &WorkloadId) {
        if let Some(handle) = self.handles.get(id) {
            let (done, wait) = tokio::sync::oneshot::channel();
            if handle.commands.send(Command::Stop { reason: "simulated", grace: Duration::ZERO, done }).await.is_ok() {
                wait.await.ok();
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Shared {
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
}

/// A node's days: workloads are deployed, some are stopped, the node drains, and it is killed a few times. Gives its last process, and the
/// workloads that a later process restored.
async fn live_through(world: &Shared, host: &Arc<TaskScope>, ids: &[WorkloadId]) -> (Process, BTreeSet<WorkloadId>) {
    let mut process = Process::new(world, host);
    let mut restored = BTreeSet::new();
    for id in ids {
        let restarts = lock(world).chance(60);
        let first = process.start(id, State::new(restarts), None);
        let (world, id) = (Arc::clone(world), id.clone());
        process.drivers.spawn("deployer", async move {
            if let Ok(Ok(())) = first.await {
                let mut world = lock(&world);
                if !world.deployed.contains_key(&id) {
                    world.violations.push(format!("{id} is accepted and nobody was told"));
                }
            }
        });
    }
    let crashes = lock(world).rng.random_range(0..4_u32);
    for _ in 0..crashes {
        let pause = lock(world).pause(60_000);
        tokio::time::sleep(pause).await;
        let stopped = lock(world).rng.random_range(0..ids.len() * 3);
        if let Some(id) = ids.get(stopped) {
            process.stop(id).await;
        }
        if lock(world).chance(20) {
            for handle in process.handles.values() {
                handle.commands.try_send(Command::LameDuck).ok();
            }
        }
        process.crash().await;
        lock(world).calls_are_certain = false;
        let pause = lock(world).pause(30_000);
        tokio::time::sleep(pause).await;
        let (next, left) = Process::after_a_crash(world, host);
        process = next;
        restored.extend(left);
    }
    (process, restored)
}

/// One node's life; gives how many instances were taken over in it.
async fn run(seed: u64) -> u32 {
    let (world, host) = (World::new(seed), Arc::new(TaskScope::new("host")));
    let count = lock(&world).rng.random_range(1..5_u32);
    let ids: Vec<WorkloadId> = (0..count).map(WorkloadId::new).collect();
    let (process, restored) = live_through(&world, &host, &ids).await;
    lock(&world).is_quiet = true;
    tokio::time::sleep(SETTLED).await;
    for (id, handle) in &process.handles {
        if handle.status.borrow().phase == Phase::Running {
            assert!(lock(&world).running.contains_key(id), "{id} has ended and nobody saw it");
        }
    }
    for id in &ids {
        process.stop(id).await;
    }
    process.drivers.shutdown(Duration::from_secs(60)).await;
    let world = lock(&world);
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(world.running.is_empty(), "still running: {:?}", world.running);
    assert!(world.agents.is_empty(), "agents are left: {:?}", world.agents.keys());
    assert!(world.journal.is_empty(), "still in the journal: {:?}", world.journal);
    for id in &ids {
        let ends = world.undeployed.get(id).copied().unwrap_or_default();
        let was_accepted = restored.contains(id) || world.deployed.contains_key(id);
        assert_eq!(ends, u32::from(was_accepted), "{id}: accepted {was_accepted}, ended {ends} times");
    }
    if world.calls_are_certain {
        assert_eq!(world.calls_told, world.calls_sent, "calls told, and calls made");
    }
    world.adopted
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_fails_every_accepted_workload_is_kept_and_ends_once() {
    let seeds = match number("NEX_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NEX_SEEDS").unwrap_or(SEEDS),
    };
    let (lives, mut adopted) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed))));
        let Ok(taken_over) = ran else { panic!("seed {seed} failed; again: NEX_SEED={seed} cargo test -p nex-node simulation") };
        adopted += u64::from(taken_over);
    }
    assert!(lives < SEEDS || adopted > lives / 10, "only {adopted} instances were taken over in {lives} lives");
}

//! A workload on this node: [`state`] decides, [`driver`] owns the instance and acts by [`runtime`], [`Workload`] is the handle.

mod cause;
pub mod command;
pub mod driver;
mod environment;
pub mod files;
pub mod launch;
pub mod launch_error;
pub mod launched;
pub mod meter;
pub mod outcome;
pub mod rules;
pub mod runtime;
pub mod secrets;
mod serving;
#[cfg(test)]
mod simulation;
pub mod spec;
pub mod state;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use nex_protocol::control::{self, ExitCause, LastExit, Machine, MachineWorkload, WorkloadSummary};
use nex_protocol::deploy::HealthCheck;
use nex_protocol::id::WorkloadId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::call_reporter::CallCounters;
use crate::clock;
use crate::journal::LifeRecord;
use crate::logs::Log;
use crate::registry::{Registry, Reservation};
use crate::tail::Tail;
use command::{Command, FirstStart, LastEnd, Status};
use driver::Driver;
use files::Present;
use launched::LeftRunning;
use meter::Meter;
use outcome::Timeouts;
use runtime::{DriverServices, NodeRuntime};
use spec::WorkloadSpec;
use state::{Phase, State};

/// Handle of a workload.
pub struct Workload {
    /// What it is.
    pub spec: Arc<WorkloadSpec>,
    /// What it has done.
    pub counters: Arc<CallCounters>,
    /// What it has said last.
    pub tail: Arc<Tail>,
    /// What it uses.
    pub meter: Meter,
    /// Its instance at this moment.
    pub present: Present,
    began: Instant,
    /// Time it has to end in order when somebody stops it, and at most when the node does.
    grace: Duration,
    node_grace: Duration,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").field("spec", &self.spec).field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// The workloads of a node.
pub type Workloads = Registry<Workload>;

impl AsRef<WorkloadSpec> for Workload {
    fn as_ref(&self) -> &WorkloadSpec {
        &self.spec
    }
}

/// Whether a workload is new here, or an earlier process of this node had accepted it.
#[derive(Debug)]
pub enum Origin {
    /// A request that has an answer by then.
    Deployed(Deadline),
    /// The journal.
    Restored(Box<Before>),
}

/// What an earlier process knew of a workload, and left of it.
#[derive(Debug)]
pub struct Before {
    /// What is left running of it.
    pub left: Option<LeftRunning>,
    /// Whether it ran when that process wrote it down.
    pub ran: bool,
    /// What was counted.
    pub life: LifeRecord,
}

/// Puts a workload into the registry and starts its driver; the receiver hears how the first start went.
pub fn start(
    spec: WorkloadSpec,
    origin: Origin,
    reservation: Reservation<Workload>,
    services: &Arc<DriverServices>,
    log: impl Fn(&WorkloadSpec) -> Log,
) -> (Arc<Workload>, oneshot::Receiver<FirstStart>) {
    let counters = Arc::new(CallCounters::new(&spec.triggers));
    let spec = Arc::new(spec);
    let (commands, inbox) = mpsc::channel(16);
    let registry = reservation.registry().clone();
    let unregister = Box::new(move |id: &WorkloadId| registry.remove(id));
    let tail = services.tails.open();
    let logs = (log(&spec).keeping(&tail), log(&spec).keeping(&tail), Arc::clone(&tail));
    let mut began = Instant::now();
    let age = Duration::from_secs(u64::try_from(clock::unix_seconds().saturating_sub(spec.deployed_at)).unwrap_or_default());
    let (rules, grace) = (spec.rules(), spec.stop_grace(services.timeouts.stop_grace));
    let timeouts = Timeouts {
        deploy: services.timeouts.deploy,
        stop_grace: grace,
        health: spec.policy.health.as_ref().map_or(Duration::ZERO, HealthCheck::start_time),
        life: spec.policy.job.and_then(|job| job.deadline).map(|deadline| deadline.saturating_sub(age)),
    };
    let mut runtime = NodeRuntime::new(Arc::clone(&spec), services, unregister, Arc::clone(&counters), logs);
    let (mut state, mut by, mut waited) = (State::new(rules), None, Duration::ZERO);
    match origin {
        Origin::Deployed(deadline) => by = Some(deadline),
        Origin::Restored(before) => {
            let Before { left: found, ran, life } = *before;
            began = began.checked_sub(age).unwrap_or(began);
            state = match life.backing_off_since {
                Some(since) => {
                    waited = Duration::from_secs(u64::try_from(clock::unix_seconds().saturating_sub(since)).unwrap_or_default());
                    State { announced: life.announced, ..State::backing_off(rules) }
                }
                // Of a job that ran it is not known what it has done: taking over what is not there fails, and that is counted.
                None if found.is_some() || (ran && rules.retries.is_some()) => State::left_running(rules),
                None => State::restored(rules),
            };
            state = state.counting(life.restarts, life.streak);
            runtime = runtime.taking_over(found).counting(state.restarts);
        }
    }
    let (status, seen) = watch::channel(Status { phase: state.phase, restarts: state.restarts, last_end: None });
    let (meter, present) = (runtime.meter(), runtime.present());
    let mut driver = Driver::new(runtime, state, timeouts, by, status);
    let first = driver.first_start();
    let workload = reservation.fill(Workload {
        spec,
        counters,
        tail,
        meter,
        present,
        began,
        grace,
        node_grace: services.timeouts.stop_grace,
        commands,
        status: seen,
    });
    services.scope.spawn("workload", driver.run(inbox, waited));
    (workload, first)
}

impl Workload {
    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How it ends for the first time, if that is within this time.
    pub async fn ends_within(&self, time: Duration) -> Option<Arc<LastEnd>> {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| status.last_end.is_some() || status.phase == Phase::Stopped);
        let ended = tokio::time::timeout(time, ended).await.ok()?;
        let stopped = || LastEnd {
            cause: ExitCause::Stopped,
            code: -1,
            message: "somebody stopped it".into(),
            ran: self.began.elapsed(),
            at: clock::unix_seconds(),
        };
        Some(ended.ok().and_then(|status| status.last_end.clone()).unwrap_or_else(|| Arc::new(stopped())))
    }

    /// Stops it and waits until nothing is left of it. Calls that it has taken are answered.
    pub async fn stop(&self, reason: &str) {
        self.stop_within(reason, ExitCause::Stopped, self.grace).await;
    }

    /// Stops it with the node, which waits no longer than its stop grace.
    pub async fn shut_down(&self, reason: &str) {
        self.stop_within(reason, ExitCause::NodeStopped, self.grace.min(self.node_grace)).await;
    }

    async fn stop_within(&self, reason: &str, cause: ExitCause, grace: Duration) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Stop { reason: reason.to_owned(), cause, grace, done }).await.is_ok() {
            wait.await.ok();
        }
    }

    /// Waits until its first start is over, well or not; it may have to pass its health check then.
    pub async fn began(&self) {
        let mut status = self.status.clone();
        status.wait_for(|status| status.phase != Phase::Starting).await.ok();
    }

    /// No more restarts from now on.
    pub async fn lame_duck(&self) {
        self.commands.send(Command::LameDuck).await.ok();
    }

    /// Starts it anew, with its secrets as they are now, if it runs: a function takes calls all the time. Returns when that is done.
    pub(crate) async fn renew(&self) {
        let (done, wait) = oneshot::channel();
        // Two instances of a service would meet on its ports, and triggers that keep their messages wait anyway.
        let overlaps = self.spec.kind.is_function() && self.spec.durable.is_empty();
        if self.commands.send(Command::Renew { overlaps, done }).await.is_ok() {
            wait.await.ok();
        }
    }

    /// Its line in an answer to WPING.
    #[must_use]
    pub fn summary(&self) -> WorkloadSummary {
        let status = self.status();
        WorkloadSummary {
            id: self.spec.id.to_string(),
            namespace: self.spec.namespace.to_string(),
            name: self.spec.name.to_string(),
            r#type: self.spec.kind.to_string(),
            uptime: control::uptime(self.began.elapsed()),
            state: status.phase.as_str().to_owned(),
            restarts: status.restarts,
            triggers: self.spec.trigger_texts(),
            trigger_states: Vec::new(),
            issuer: self.spec.claims.iss.clone(),
            last_exit: status.last_end.map(|end| LastExit { code: end.code, reason: end.how(), cause: end.cause, at: end.at }),
            revision: self.spec.request.revision.clone(),
            artifact: self.spec.request.location.as_ref().map(ToString::to_string),
            is_job: self.spec.policy.job.is_some(),
            secrets: self.spec.secrets.names(),
            stop_grace_ms: self.spec.policy.stop_grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
            isolation: Some(self.spec.isolation),
            settings: None,
            tail: Vec::new(),
            usage: None,
        }
    }

    /// Its entry in an answer to INFO.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let uptime = control::uptime(self.began.elapsed());
        let in_calls = || control::runtime(Duration::from_nanos(self.counters.nanos()));
        Machine {
            id: self.spec.id.to_string(),
            healthy: self.status().phase == Phase::Running,
            namespace: self.spec.namespace.to_string(),
            workload: MachineWorkload {
                name: self.spec.name.to_string(),
                description: self.spec.description.clone(),
                runtime: if self.spec.kind.is_function() { in_calls() } else { uptime.clone() },
                r#type: self.spec.kind.to_string(),
                hash: self.spec.artifact.digest.to_string(),
            },
            uptime,
        }
    }
}

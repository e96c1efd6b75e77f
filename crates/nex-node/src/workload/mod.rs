//! A workload on this node: [`state`] decides, [`driver`] owns the instance and acts by [`runtime`], [`Workload`] is the handle.

pub mod command;
pub mod driver;
pub mod launch;
pub mod launch_error;
pub mod runtime;
#[cfg(test)]
mod simulation;
pub mod spec;
pub mod state;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_process::Deadline;
use nex_protocol::control::{self, LastExit, Machine, MachineWorkload, WorkloadSummary};
use nex_protocol::id::WorkloadId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::call_reporter::CallCounters;
use crate::clock;
use crate::logs::Log;
use crate::registry::{Registry, Reservation};
use crate::tail::Tail;
use command::{Command, FirstStart, LastEnd, Status};
use driver::Driver;
use launch::LeftRunning;
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
    began: Instant,
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
    /// The journal, and what is left running of it.
    Restored(Option<LeftRunning>),
}

/// Puts a workload into the registry and starts its driver; the receiver hears how the first start went.
pub fn start(
    spec: WorkloadSpec,
    origin: Origin,
    reservation: Reservation<Workload>,
    services: &Arc<DriverServices>,
    log: impl Fn(&WorkloadSpec) -> Log,
) -> (Arc<Workload>, oneshot::Receiver<FirstStart>) {
    let (spec, counters) = (Arc::new(spec), Arc::new(CallCounters::default()));
    let (commands, inbox) = mpsc::channel(16);
    let registry = reservation.registry().clone();
    let unregister = Box::new(move |id: &WorkloadId| registry.remove(id));
    let tail = services.tails.open();
    let logs = (log(&spec).keeping(&tail), log(&spec).keeping(&tail), Arc::clone(&tail));
    let mut began = Instant::now();
    let (state, by, left) = match origin {
        Origin::Deployed(by) => (State::new(spec.restarts), Some(by), None),
        Origin::Restored(None) => (State::restored(spec.restarts), None, None),
        Origin::Restored(left) => {
            let age = u64::try_from(clock::unix_seconds().saturating_sub(spec.deployed_at)).unwrap_or_default();
            began = began.checked_sub(Duration::from_secs(age)).unwrap_or(began);
            (State::left_running(spec.restarts), None, left)
        }
    };
    let (status, seen) = watch::channel(Status { phase: state.phase, restarts: 0, last_end: None });
    let runtime = NodeRuntime::new(Arc::clone(&spec), services, unregister, Arc::clone(&counters), logs).taking_over(left);
    let mut driver = Driver::new(runtime, state, services.timeouts, by, status);
    let first = driver.first_start();
    let workload = reservation.fill(Workload { spec, counters, tail, began, commands, status: seen });
    services.scope.spawn("workload", driver.run(inbox));
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
        let stopped =
            || LastEnd { code: -1, message: "somebody stopped it".into(), ran: self.began.elapsed(), at: clock::unix_seconds() };
        Some(ended.ok().and_then(|status| status.last_end.clone()).unwrap_or_else(|| Arc::new(stopped())))
    }

    /// Stops it and waits until nothing is left of it. Calls that it has taken are answered.
    pub async fn stop(&self, reason: &'static str) {
        let grace = if self.spec.kind.is_function() { self.spec.call_timeout() } else { Duration::ZERO };
        self.stop_within(reason, grace).await;
    }

    /// Stops it with the node, which waits no longer than its stop grace.
    pub async fn shut_down(&self, reason: &'static str) {
        self.stop_within(reason, Duration::ZERO).await;
    }

    async fn stop_within(&self, reason: &'static str, grace: Duration) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Stop { reason, grace, done }).await.is_ok() {
            wait.await.ok();
        }
    }

    /// No more restarts from now on.
    pub async fn lame_duck(&self) {
        self.commands.send(Command::LameDuck).await.ok();
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
            triggers: self.spec.triggers.clone(),
            issuer: self.spec.claims.iss.clone(),
            last_exit: status.last_end.map(|end| LastExit { code: end.code, reason: end.how(), at: end.at }),
            revision: self.spec.request.revision.clone(),
            tail: Vec::new(),
        }
    }

    /// Its entry in an answer to INFO.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let uptime = control::uptime(self.began.elapsed());
        let in_calls = || control::runtime(Duration::from_nanos(self.counters.nanos.load(std::sync::atomic::Ordering::Relaxed)));
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

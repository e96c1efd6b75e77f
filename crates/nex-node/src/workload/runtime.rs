//! How a driver's effects are carried out on a node.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::AgentEvent;
use nex_protocol::control::LastExit;
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_protocol::log::Level;

use super::driver::{End, Ended, Notice, Runtime, Timeouts};
use super::launch::{Launched, Launcher, LeftRunning};
use super::launch_error::LaunchError;
use super::spec::WorkloadSpec;
use crate::agents::inbox::{self, Inbox, LogBatch};
use crate::call_reporter::{CallCounters, CallReporter};
use crate::clock;
use crate::ended::EndedWorkloads;
use crate::events::Events;
use crate::host_calls::HostCallServer;
use crate::journal::{Journal, JournalError, OwedEvent, WorkloadRecord};
use crate::logs::Log;
use crate::tail::{Tail, Tails};

/// What the drivers of a node share.
#[derive(Debug)]
pub struct DriverServices {
    /// Starts instances.
    pub launcher: Launcher,
    /// Serves their host calls.
    pub host_calls: HostCallServer,
    /// What survives this process.
    pub journal: Journal,
    /// What the world is told.
    pub events: Events,
    /// What workloads said last.
    pub tails: Tails,
    /// Those that ended lately.
    pub ended: EndedWorkloads,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Owner of the drivers, and of what they leave to be done in the background.
    pub scope: TaskScope,
}

/// Takes a workload out of the registry.
type Unregister = Box<dyn Fn(&WorkloadId) + Send + Sync>;

/// The runtime of one workload.
pub(super) struct NodeRuntime {
    spec: Arc<WorkloadSpec>,
    services: Arc<DriverServices>,
    unregister: Unregister,
    reports: Reports,
    /// What tells of its end, once the journal has it.
    end_event: Option<OwedEvent>,
    tail: Arc<Tail>,
    /// How often it was started again.
    restarts: u32,
    /// What an earlier process left running of it, until that is taken over.
    left: Option<LeftRunning>,
    /// Owner of the tasks that serve this workload.
    scope: TaskScope,
}

/// Where what an instance reports goes.
#[derive(Clone)]
struct Reports {
    log: Arc<Mutex<Log>>,
    calls: CallReporter,
}

/// An instance on a node, and the tasks that serve it.
pub(super) struct NodeInstance {
    launched: Launched,
    lost: BoxFuture<'static, String>,
    serving: TaskScope,
}

impl NodeInstance {
    fn new(mut launched: Launched, host_calls: &HostCallServer, spec: Arc<WorkloadSpec>, serving: TaskScope) -> Self {
        if let Some(calls) = launched.instance.inbox.host_calls.take() {
            host_calls.serve(&serving, spec, calls);
        }
        let lost = launched.instance.agent().lost();
        Self { launched, lost: Box::pin(async move { lost.await.to_string() }), serving }
    }
}

impl NodeRuntime {
    /// The runtime of a workload that is in the registry.
    pub(super) fn new(
        spec: Arc<WorkloadSpec>,
        services: &Arc<DriverServices>,
        unregister: Unregister,
        counters: Arc<CallCounters>,
        (log, calls_log, tail): (Log, Log, Arc<Tail>),
    ) -> Self {
        let scope = TaskScope::new("workload");
        let calls = CallReporter::start(&scope, services.events.clone(), calls_log, Arc::clone(&spec), counters);
        let reports = Reports { log: Arc::new(Mutex::new(log)), calls };
        Self { spec, services: Arc::clone(services), unregister, reports, tail, restarts: 0, left: None, end_event: None, scope }
    }

    /// With what an earlier process left running of it.
    pub(super) fn taking_over(self, left: Option<LeftRunning>) -> Self {
        Self { left, ..self }
    }
}

impl Runtime for NodeRuntime {
    type Instance = NodeInstance;

    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<NodeInstance, LaunchError>> {
        let (services, spec, calls) = (Arc::clone(&self.services), Arc::clone(&self.spec), self.reports.calls.clone());
        let (serving, left) = (self.scope.child("serving"), self.left.take());
        Box::pin(async move {
            let left = left.ok_or_else(|| LaunchError::Adoption("nothing is left of it".to_owned()))?;
            let launched = services.launcher.adopt(&spec, left, &calls, by).await?;
            Ok(NodeInstance::new(launched, &services.host_calls, spec, serving))
        })
    }

    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<NodeInstance, LaunchError>> {
        let (services, spec, calls) = (Arc::clone(&self.services), Arc::clone(&self.spec), self.reports.calls.clone());
        let serving = self.scope.child("serving");
        Box::pin(async move {
            let launched = services.launcher.launch(&spec, &calls, by).await?;
            Ok(NodeInstance::new(launched, &services.host_calls, spec, serving))
        })
    }

    fn record(&self, instance: &NodeInstance) -> BoxFuture<'static, Result<(), JournalError>> {
        let running = instance.launched.record();
        let record = WorkloadRecord {
            namespace: self.spec.namespace.clone(),
            request: self.spec.request.clone(),
            digest: self.spec.artifact.digest,
            deployed_at: self.spec.deployed_at,
            running: Some(running),
        };
        let (journal, id) = (self.services.journal.clone(), self.spec.id.clone());
        Box::pin(async move { journal.put_workload(id, record).await })
    }

    fn ended<'a>(&'a mut self, instance: &'a mut NodeInstance) -> BoxFuture<'a, Ended> {
        let reports = &self.reports;
        let spec = &self.spec;
        Box::pin(async move {
            let NodeInstance { launched, lost, .. } = instance;
            let agent = launched.instance.agent().id().clone();
            let Inbox { events, logs, .. } = &mut launched.instance.inbox;
            loop {
                tokio::select! {
                    // What it said comes before the news of its end.
                    biased;
                    Some(event) = events.recv() => match event {
                        AgentEvent::Exited { code, message: signal } => {
                            // Its last lines were sent before this event.
                            while let Some(batch) = logs.try_recv() {
                                reports.lines(batch);
                            }
                            let suffix = if signal.is_empty() { String::new() } else { format!(" ({signal})") };
                            let message = format!("Exited workload: {}; vm: {}; status: {code}{suffix}", spec.name, spec.id);
                            return Ended::Exited { code, signal, message };
                        }
                        // Nobody here asked for it: the process that did was killed before it could tell so.
                        AgentEvent::Stopped => {
                            return Ended::AgentLost { agent, reason: format!("the agent of {} had stopped it", spec.name) };
                        }
                        calls @ AgentEvent::Calls { .. } => reports.calls(calls),
                    },
                    why = &mut *lost => {
                        while let Some(batch) = logs.try_recv() {
                            reports.lines(batch);
                        }
                        return Ended::AgentLost { agent, reason: format!("the agent of {} was lost: {why}", spec.name) };
                    }
                    Some(batch) = logs.recv() => reports.lines(batch),
                }
            }
        })
    }

    fn undeploy(&self, instance: NodeInstance, grace: Duration) -> BoxFuture<'static, ()> {
        let reports = self.reports.clone();
        Box::pin(async move {
            let NodeInstance { mut launched, serving, .. } = instance;
            // Read while it is stopped: its last lines, and calls that end now.
            let mut inbox = std::mem::replace(&mut launched.instance.inbox, inbox::closed());
            let undeployed = async {
                launched.undeploy(grace).await;
                launched
            };
            tokio::pin!(undeployed);
            let launched = loop {
                tokio::select! {
                    launched = &mut undeployed => break launched,
                    Some(event) = inbox.events.recv() => reports.calls(event),
                    Some(batch) = inbox.logs.recv() => reports.lines(batch),
                }
            };
            while let Ok(event) = inbox.events.try_recv() {
                reports.calls(event);
            }
            while let Some(batch) = inbox.logs.try_recv() {
                reports.lines(batch);
            }
            launched.end().await;
            serving.shutdown(Duration::ZERO).await;
        })
    }

    fn release(&self, instance: NodeInstance) {
        self.services.scope.spawn("release", async move {
            let NodeInstance { launched, serving, .. } = instance;
            launched.end().await;
            serving.shutdown(Duration::ZERO).await;
        });
    }

    fn tell(&mut self, notice: &Notice<'_>) {
        let (spec, events) = (&self.spec, &self.services.events);
        match notice {
            Notice::Deployed => {
                events.deployed(spec);
                tracing::info!(workload_id = %spec.id, name = %spec.name, namespace = %spec.namespace, kind = %spec.kind, "workload deployed");
            }
            Notice::Adopted => {
                tracing::info!(workload_id = %spec.id, name = %spec.name, namespace = %spec.namespace, kind = %spec.kind, "workload runs on");
            }
            Notice::NotAdopted(error) => {
                tracing::warn!(workload_id = %spec.id, name = %spec.name, error = %chain(error), "workload is started anew");
            }
            Notice::StartFailed(error) => {
                tracing::warn!(workload_id = %spec.id, name = %spec.name, error = %chain(error), "workload could not be started");
            }
            Notice::AgentLost { agent, reason } => {
                events.agent_stopped(agent, reason);
                tracing::warn!(workload_id = %spec.id, name = %spec.name, "{reason}");
            }
            Notice::Restarting { reason, pause } => {
                let pause_ms = pause.as_millis();
                tracing::warn!(workload_id = %spec.id, name = %spec.name, pause_ms, "workload failed and is started again after a pause: {reason}");
                self.restarts = self.restarts.saturating_add(1);
                self.reports.log().line(Level::Warn, format!("{reason}; starting again in {pause_ms} ms"));
            }
            Notice::NotRecorded(error) => {
                tracing::error!(workload_id = %spec.id, error = %chain(error), "the journal does not take the workload");
            }
            Notice::Undeployed { code, reason } => {
                self.reports.log().report_dropped();
                self.reports.calls.flush();
                if let Some(event) = self.end_event.take() {
                    events.owed(&spec.id, &event);
                }
                let exit = LastExit { code: *code, reason: (*reason).to_owned(), at: clock::unix_seconds() };
                self.services.ended.push(spec, self.restarts, exit, &self.tail);
                tracing::info!(workload_id = %spec.id, name = %spec.name, code, "workload ended: {reason}");
            }
        }
    }

    fn forget(&mut self, end: Option<&End>) -> BoxFuture<'static, ()> {
        (self.unregister)(&self.spec.id);
        self.end_event = end.map(|end| self.services.events.undeployed(&self.spec, end.code, &end.reason));
        let owed = self.end_event.clone();
        let (services, spec) = (Arc::clone(&self.services), Arc::clone(&self.spec));
        Box::pin(async move {
            services.host_calls.forget(&spec);
            let forgotten = match owed {
                Some(event) => services.journal.end_workload(spec.id.clone(), event).await,
                None => services.journal.remove_workload(spec.id.clone()).await,
            };
            if let Err(error) = forgotten {
                tracing::error!(workload_id = %spec.id, error = %chain(&error), "an ended workload stays in the journal");
            }
        })
    }
}

impl Reports {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self, batch: LogBatch) {
        let mut log = self.log();
        log.lost(batch.logs.dropped, batch.lost_bytes);
        for line in batch.logs.lines {
            log.line(if line.stderr { Level::Error } else { Level::Info }, line.text);
        }
    }

    fn calls(&self, event: AgentEvent) {
        if let AgentEvent::Calls { trigger, succeeded, failed, elapsed_nanos, errors } = event {
            if succeeded > 0 {
                self.calls.succeeded(&trigger.as_str().into(), succeeded, elapsed_nanos);
            }
            if failed > 0 {
                self.calls.failed(&trigger, failed, errors.iter().map(String::as_str));
            }
        }
    }
}

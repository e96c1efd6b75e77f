//! How a driver's effects are carried out on a node.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use nex_process::{Deadline, TaskScope};
use nex_protocol::control::{EndedWorkload, ExitCause, LastExit};
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_protocol::log::Level;

use super::files::Present;
use super::launch::Launcher;
use super::launch_error::LaunchError;
use super::launched::LeftRunning;
use super::meter::Meter;
use super::outcome::{End, Notice, Runtime, Seen};
use super::serving::{NodeInstance, Reports};
use super::spec::WorkloadSpec;
use crate::call_reporter::{CallCounters, CallReporter};
use crate::clock;
use crate::ended::EndedWorkloads;
use crate::events::Events;
use crate::history::History;
use crate::host_calls::HostCallServer;
use crate::identity::Identity;
use crate::journal::{EndedRecord, Journal, JournalError, LifeRecord, OwedEvent, TokenId, WorkloadRecord};
use crate::logs::Log;
use crate::quota::LogRates;
use crate::tail::{Tail, Tails};

/// Last lines kept of what has ended, and their bytes; longest last line shown in a list, characters.
const LINES: usize = 100;
const BYTES: usize = 16 * 1024;
const LINE: usize = 200;
/// Longest settings that are kept of what somebody stopped, as they are sealed, bytes.
const SETTINGS: usize = 64 * 1024;
/// Pause before a disk that did not take the end of a workload is tried again.
const FORGET_AGAIN: Duration = Duration::from_secs(1);

/// What the drivers of a node share.
#[derive(Debug)]
pub struct DriverServices {
    /// The node's keys.
    pub identity: Arc<Identity>,
    /// Starts instances.
    pub launcher: Launcher,
    /// Serves their host calls.
    pub host_calls: HostCallServer,
    /// What survives this process.
    pub journal: Journal,
    /// What the world is told.
    pub events: Events,
    /// What is kept of that.
    pub history: History,
    /// How much they may write.
    pub log_rates: LogRates,
    /// What workloads said last.
    pub tails: Tails,
    /// Those that ended lately.
    pub ended: EndedWorkloads,
    /// How long things may take.
    pub timeouts: NodeTimeouts,
    /// Owner of the drivers, and of what they leave to be done in the background.
    pub scope: TaskScope,
}

/// How long things may take where a workload says nothing else.
#[derive(Debug, Clone, Copy)]
pub struct NodeTimeouts {
    /// A start.
    pub deploy: Duration,
    /// A workload's own end.
    pub stop_grace: Duration,
}

/// Takes a workload out of the registry.
type Unregister = Box<dyn Fn(&WorkloadId) + Send + Sync>;

/// The runtime of one workload.
pub(super) struct NodeRuntime {
    spec: Arc<WorkloadSpec>,
    services: Arc<DriverServices>,
    unregister: Unregister,
    reports: Reports,
    /// Whether an earlier process has recorded it, and with it what tells that it runs: this one does not tell so.
    is_restored: bool,
    /// What tells that it runs, until that is told.
    deployed_event: Option<OwedEvent>,
    /// What tells of its end, once the journal has it.
    end_event: Option<(OwedEvent, EndedRecord)>,
    tail: Arc<Tail>,
    meter: Meter,
    present: Present,
    /// How often it was started again.
    restarts: u32,
    /// Whether it is this one that tells the world of its lost agent, which others had as well.
    tells_of_loss: bool,
    /// What an earlier process left running of it, until that is taken over.
    left: Option<LeftRunning>,
    /// Owner of the tasks that serve this workload.
    scope: TaskScope,
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
        let reports = Reports::new(log, calls);
        Self {
            spec,
            services: Arc::clone(services),
            unregister,
            reports,
            tail,
            meter: Meter::default(),
            present: Present::default(),
            restarts: 0,
            tells_of_loss: true,
            left: None,
            is_restored: false,
            deployed_event: None,
            end_event: None,
            scope,
        }
    }

    /// What it uses.
    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Its instance at this moment.
    pub(super) fn present(&self) -> Present {
        self.present.clone()
    }

    /// What is kept of how it ended.
    fn ended_record(&self, end: &End) -> EndedRecord {
        let spec = &self.spec;
        let last_line = self.tail.final_lines(1).pop().map(|line| line.text.chars().take(LINE).collect());
        let exit = LastExit { code: end.code, reason: end.reason.clone(), cause: end.cause, at: clock::unix_seconds() };
        let told = EndedWorkload {
            id: spec.id.to_string(),
            namespace: String::new(),
            name: spec.name.to_string(),
            r#type: spec.kind.to_string(),
            restarts: self.restarts,
            is_job: spec.policy.job.is_some(),
            exit,
            issuer: spec.claims.iss.clone(),
            revision: spec.request.revision.clone(),
            last_line,
            tail: self.tail.last_within(LINES, BYTES),
            digest: Some(spec.artifact.digest.to_string()),
            // What was stopped may be wanted back; what failed is not.
            settings: (end.cause == ExitCause::Stopped)
                .then(|| spec.sealed_settings(&self.services.identity.xkey))
                .flatten()
                .filter(|settings| settings.sealed.len() <= SETTINGS),
        };
        EndedRecord { namespace: spec.namespace.clone(), token: spec.claims.jti.clone(), told }
    }

    /// Of an earlier process, with what that left running of it.
    pub(super) fn taking_over(self, left: Option<LeftRunning>) -> Self {
        Self { is_restored: true, left, ..self }
    }

    /// Having been started again so often.
    pub(super) fn counting(self, restarts: u32) -> Self {
        Self { restarts, ..self }
    }
}

impl Runtime for NodeRuntime {
    type Instance = NodeInstance;

    fn adopt(&mut self, by: Deadline) -> BoxFuture<'static, Result<(NodeInstance, Duration), LaunchError>> {
        let (services, spec, calls) = (Arc::clone(&self.services), Arc::clone(&self.spec), self.reports.calls.clone());
        let (serving, left, meter) = (self.scope.child("serving"), self.left.take(), self.meter.clone());
        let present = self.present.clone();
        Box::pin(async move {
            let left = left.ok_or_else(|| LaunchError::Adoption("nothing is left of it".to_owned()))?;
            let launched = services.launcher.adopt(&spec, left, &calls, by).await?;
            meter.watch(launched.instance.agent());
            present.watch(&launched.instance);
            let age = launched.age();
            Ok((NodeInstance::new(launched, &services.host_calls, spec, serving), age))
        })
    }

    fn start(&self, by: Deadline) -> BoxFuture<'static, Result<NodeInstance, LaunchError>> {
        let (services, spec, calls) = (Arc::clone(&self.services), Arc::clone(&self.spec), self.reports.calls.clone());
        let (serving, meter, present) = (self.scope.child("serving"), self.meter.clone(), self.present.clone());
        Box::pin(async move {
            let launched = services.launcher.launch(&spec, &calls, by).await?;
            meter.watch(launched.instance.agent());
            present.watch(&launched.instance);
            Ok(NodeInstance::new(launched, &services.host_calls, spec, serving))
        })
    }

    fn record(&mut self, instance: Option<&NodeInstance>, life: LifeRecord) -> BoxFuture<'static, Result<(), JournalError>> {
        let record = WorkloadRecord {
            namespace: self.spec.namespace.clone(),
            request: self.spec.request.clone(),
            digest: self.spec.artifact.digest,
            deployed_at: self.spec.deployed_at,
            running: instance.map(NodeInstance::record),
            life,
        };
        if !life.announced && !self.is_restored {
            self.deployed_event.get_or_insert_with(|| self.services.events.deployed(&self.spec));
        }
        let (journal, id, token) = (self.services.journal.clone(), self.spec.id.clone(), TokenId::from(&self.spec.claims));
        let owed = self.deployed_event.clone();
        Box::pin(async move { journal.put_workload(id, record, token, owed).await })
    }

    fn watch<'a>(&'a mut self, instance: &'a mut NodeInstance) -> BoxFuture<'a, Seen> {
        Box::pin(instance.watch(&self.spec, &self.reports, &mut self.tells_of_loss))
    }

    fn undeploy(&self, instance: NodeInstance, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(instance.undeploy(self.reports.clone(), grace, self.spec.policy.stop_signal))
    }

    fn release(&self, instance: NodeInstance) {
        self.services.scope.spawn("release", instance.end());
    }

    fn tell(&mut self, notice: &Notice<'_>) {
        let (spec, events) = (&self.spec, &self.services.events);
        match notice {
            Notice::Started => events.started(spec, self.restarts),
            Notice::Deployed => {
                if let Some(event) = self.deployed_event.take() {
                    events.owed(&spec.id, &event);
                }
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
                if self.tells_of_loss {
                    events.agent_stopped(agent, reason);
                }
                tracing::warn!(workload_id = %spec.id, name = %spec.name, "{reason}");
            }
            Notice::Restarting { end, pause } => {
                let (reason, pause_ms) = (&end.reason, pause.as_millis());
                events.restarting(spec, end, *pause);
                tracing::warn!(workload_id = %spec.id, name = %spec.name, pause_ms, "workload failed and is started again after a pause: {reason}");
                self.restarts = self.restarts.saturating_add(1);
                self.reports.log().line(Level::Warn, format!("{reason}; starting again in {pause_ms} ms"));
            }
            Notice::NotRecorded(error) => {
                tracing::error!(workload_id = %spec.id, error = %chain(error), "the journal does not take the workload");
            }
            Notice::Sick(reason) => {
                tracing::warn!(workload_id = %spec.id, name = %spec.name, "workload is unhealthy: {reason}");
                events.unhealthy(spec, reason);
            }
            Notice::Undeployed(End { code, reason, .. }) => {
                self.reports.log().report_dropped();
                self.reports.calls.flush();
                if let Some((event, ended)) = self.end_event.take() {
                    events.owed(&spec.id, &event);
                    self.services.ended.push(ended);
                }
                tracing::info!(workload_id = %spec.id, name = %spec.name, code, "workload ended: {reason}");
            }
        }
    }

    fn forget(&mut self, end: Option<&End>) -> BoxFuture<'static, ()> {
        (self.unregister)(&self.spec.id);
        self.end_event = end.map(|end| (self.services.events.undeployed(&self.spec, end), self.ended_record(end)));
        let (owed, announced) = (self.end_event.clone(), self.deployed_event.is_none());
        let (services, spec) = (Arc::clone(&self.services), Arc::clone(&self.spec));
        Box::pin(async move {
            services.host_calls.forget(&spec);
            services.launcher.durable.forget(&spec);
            services.launcher.callees.forget(&spec.id);
            services.launcher.shared.forget(&spec.id);
            let (journal, id) = (services.journal.clone(), spec.id.clone());
            let forget = async move || match owed.clone() {
                Some((event, ended)) => journal.end_workload(id.clone(), event, ended, announced).await,
                None => journal.remove_workload(id.clone()).await,
            };
            if let Err(error) = forget().await {
                let why = chain(&error);
                tracing::error!(workload_id = %spec.id, error = %why, "an ended workload stays in the journal until its disk takes that");
                let stop = services.scope.cancel_token();
                services.scope.spawn("forget", async move {
                    while stop.run_until_cancelled(tokio::time::sleep(FORGET_AGAIN)).await.is_some() {
                        if forget().await.is_ok() {
                            tracing::info!(workload_id = %spec.id, "the journal has taken the end of a workload");
                            break;
                        }
                    }
                });
            }
        })
    }
}

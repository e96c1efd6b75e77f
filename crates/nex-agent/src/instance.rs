//! One instance: checked, started by the engine of its type, called, stopped.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_engine::native::Service;
use nex_engine::{Launch, Limits, StartError};
use nex_process::TaskScope;
use nex_process::confinement::Confinement;
use nex_protocol::agent::{AgentEvent, Deploy, RejectCode, Update};
use nex_protocol::deploy::{HealthCheck, StopSignal, WorkloadType};
use nex_protocol::id::{AgentId, InstanceId};
use nex_protocol::seal::{SealError, open};
use nkeys::XKey;

use crate::artifact::{self, ArtifactError};
use crate::connections::WorkloadConnections;
use crate::direct::{self, DirectError};
use crate::engines::{Engines, computing};
use crate::event::EventSender;
use crate::health::Checked;
use crate::host_client::BusHostClient;
use crate::invoke::Callee;
use crate::lockdown::{Lockdown, LockdownError};
use crate::output::{self, Flush};
use crate::report::Report;

/// What the kernel adds to a workload's share of memory, in thousandths, when it looks for whom to kill.
const OOM_SCORE: &str = "500";
/// Longest wait for the bus to take the last lines of an instance that is stopped.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceError {
    /// Its environment.
    #[error("its environment cannot be opened")]
    Environment(#[source] SealError),
    /// New files of it.
    #[error("its new files cannot be put in their places")]
    Files(#[source] std::io::Error),
    /// Its artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The agent is for others.
    #[error(transparent)]
    Lockdown(#[from] LockdownError),
    /// Its engine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its triggers.
    #[error(transparent)]
    Triggers(#[from] DirectError),
}

impl InstanceError {
    /// For programs.
    pub(crate) fn code(&self) -> RejectCode {
        match self {
            Self::Environment(_) | Self::Files(_) => RejectCode::Environment,
            Self::Artifact(_) => RejectCode::Artifact,
            Self::Lockdown(_) => RejectCode::Unsupported,
            Self::Start(_) => RejectCode::Start,
            Self::Triggers(_) => RejectCode::Triggers,
        }
    }
}

/// A running instance; dropping it kills it.
pub(crate) struct Instance {
    /// Set for functions.
    pub(crate) callee: Option<Callee>,
    /// Set for services.
    pub(crate) service: Option<Arc<Service>>,
    lines: Flush,
    serving: TaskScope,
    scope: TaskScope,
}

/// What an agent starts instances with.
pub(crate) struct Starter {
    pub(crate) bus: Client,
    pub(crate) agent: AgentId,
    pub(crate) key: XKey,
    pub(crate) confinement: Confinement,
    pub(crate) events: Arc<EventSender>,
    pub(crate) lockdown: Lockdown,
    pub(crate) engines: Engines,
    pub(crate) connections: WorkloadConnections,
}

/// A started engine.
enum Started {
    Service(Service),
    Function(Callee),
}

impl Starter {
    /// Starts an instance.
    pub(crate) async fn start(&self, id: &InstanceId, request: Deploy) -> Result<Instance, InstanceError> {
        let environment = open(&request.environment, &self.key, &request.sealed_by).map_err(InstanceError::Environment)?;
        let artifact = match request.r#type {
            // The node has put the image there as the root before this process was there.
            WorkloadType::Oci => request.artifact.into(),
            WorkloadType::Native | WorkloadType::V8 | WorkloadType::Wasm => {
                artifact::verify(&request.artifact, request.digest).await?
            }
        };
        let precompiled = match request.precompiled {
            // What is not what the node had made is not loaded; the engine compiles for itself then.
            Some(given) => artifact::verify(&given.path, given.digest).await.ok(),
            None => None,
        };
        let scope = TaskScope::new("instance");
        let (output, lines, forward) = output::to_bus(self.bus.clone(), &self.agent, id);
        scope.spawn("output", forward);
        let launch = Launch {
            name: request.name.to_string(),
            artifact,
            digest: request.digest,
            is_typescript: request.is_typescript,
            argv: request.argv,
            environment,
            precompiled,
            limits: Limits {
                call_time: Duration::from_millis(request.limits.call_timeout_ms),
                memory_bytes: request.limits.memory_bytes,
                concurrency: request.limits.concurrency,
                reply_bytes: request.limits.reply_bytes,
                payload_bytes: request.limits.payload_bytes,
                host_calls: request.limits.host_calls,
                log_bytes: request.limits.log_bytes,
                cpu_time: request.limits.cpu_ms.map(Duration::from_millis),
            },
            output,
            host: Arc::new(self.host_client(id, request.is_shared)),
        };
        match self.start_engine(request.r#type, request.is_shared, launch).await? {
            Started::Service(service) => Ok(self.watch(id, (service, request.health), lines, scope)),
            Started::Function(callee) => {
                let serving = TaskScope::new("serving");
                if let Some(triggers) = &request.triggers {
                    let report = Report { events: Arc::clone(&self.events), instance: id.clone() };
                    Box::pin(direct::serve(&serving, triggers, &self.connections, callee.clone(), report)).await?;
                }
                Ok(Instance { callee: Some(callee), service: None, lines, serving, scope })
            }
        }
    }

    /// Replaces files of a service, and tells it.
    pub(crate) async fn update(&self, service: Arc<Service>, request: &Update) -> Result<(), InstanceError> {
        let files = open(&request.files, &self.key, &request.sealed_by).map_err(InstanceError::Environment)?;
        let signal = request.signal;
        let updated = tokio::task::spawn_blocking(move || service.update(&files, signal)).await;
        updated.map_err(std::io::Error::other).flatten().map_err(InstanceError::Files)
    }

    async fn start_engine(&self, kind: WorkloadType, is_shared: bool, launch: Launch) -> Result<Started, InstanceError> {
        let (confinement, concurrency) = (&self.confinement, launch.limits.concurrency);
        let host = Arc::clone(&launch.host);
        if kind.is_function() {
            self.engines.prepare(confinement, is_shared, concurrency)?;
        }
        match kind {
            WorkloadType::Native => {
                self.lockdown.for_service()?;
                Ok(Started::Service(Service::start(launch).await?))
            }
            WorkloadType::V8 => {
                let restore = self.engines.restore(confinement);
                self.lockdown.for_function()?;
                let function = nex_engine_js::start(launch, restore).await?;
                // It computes on threads of its own.
                Ok(Started::Function(Callee::new((Arc::new(function), host), concurrency, None)))
            }
            WorkloadType::Wasm => {
                let engine = self.engines.prepared_wasm(confinement, is_shared, concurrency)?;
                self.lockdown.for_function()?;
                let started = engine.start(launch).await?;
                let computing = if is_shared { computing() } else { None };
                Ok(Started::Function(Callee::new((Arc::new(started.function), host), concurrency, computing)))
            }
            WorkloadType::Oci => {
                self.lockdown.for_service()?;
                Ok(Started::Service(Service::start_image(launch).await?))
            }
        }
    }

    fn host_client(&self, id: &InstanceId, is_shared: bool) -> BusHostClient {
        // A sandbox that nobody shares is not ended for a call that does not end: it holds one thread, and nobody else's.
        let events = is_shared.then(|| Arc::clone(&self.events));
        BusHostClient { bus: self.bus.clone(), agent: self.agent.clone(), instance: id.clone(), events }
    }

    /// The end of a service is an event, and the last thing that is said of it; until then its health is told.
    fn watch(
        &self,
        id: &InstanceId,
        (service, health): (Service, Option<HealthCheck>),
        lines: Flush,
        scope: TaskScope,
    ) -> Instance {
        // Killed for memory before the agent is, which has to report it. Not every jail has files for that.
        std::fs::write(format!("/proc/{}/oom_score_adj", service.pid()), OOM_SCORE).ok();
        let service = Arc::new(service);
        let checks = scope.child("health");
        if let Some(check) = health {
            let (service, events) = (Arc::clone(&service), Arc::clone(&self.events));
            let checked = Checked { service, check, host: self.host_client(id, false), events, id: id.clone() };
            checks.spawn("health", checked.run());
        }
        let (watched, events, id, written) = (Arc::clone(&service), Arc::clone(&self.events), id.clone(), lines.clone());
        scope.spawn("exit", async move {
            let exit = watched.wait().await;
            // Of what has ended nothing is told but that.
            checks.shutdown(Duration::ZERO).await;
            written.lines().await;
            let exited = AgentEvent::Exited { code: exit.code, message: exit.signal.unwrap_or_default() };
            events.deliver(&id, &exited).await;
        });
        Instance { callee: None, service: Some(service), lines, serving: TaskScope::new("serving"), scope }
    }
}

impl Instance {
    /// Stops it, politely for as long as the grace lasts: calls under way are answered, its last lines are forwarded.
    pub(crate) async fn stop(self, grace: Duration, signal: Option<StopSignal>) {
        if let Some(service) = self.service {
            service.stop(grace, signal).await;
        }
        self.serving.shutdown(grace).await;
        // A bus that is away does not keep us.
        tokio::time::timeout(LAST_LINES, self.lines.lines()).await.ok();
        self.scope.shutdown(Duration::ZERO).await;
    }
}

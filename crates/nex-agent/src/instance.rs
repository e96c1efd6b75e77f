//! One instance: checked, started by the engine of its type, called, stopped.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_engine::native::Service;
use nex_engine::{Function, Launch, Limits, StartError};
use nex_process::confinement::Confinement;
use nex_process::{TaskScope, jail};
use nex_protocol::agent::{AgentEvent, Deploy, RejectCode};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::{AgentId, InstanceId};
use nex_protocol::seal::{SealError, open};
use nkeys::XKey;

use crate::artifact::{self, ArtifactError};
use crate::direct::{self, DirectError};
use crate::event::EventSender;
use crate::host_client::BusHostClient;
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
    /// Its artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// No engine is for it.
    #[error("this agent has no engine for {0}")]
    Unsupported(WorkloadType),
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
            Self::Environment(_) => RejectCode::Environment,
            Self::Artifact(_) => RejectCode::Artifact,
            Self::Unsupported(_) | Self::Lockdown(_) => RejectCode::Unsupported,
            Self::Start(_) => RejectCode::Start,
            Self::Triggers(_) => RejectCode::Triggers,
        }
    }
}

/// A running instance; dropping it kills it.
pub(crate) struct Instance {
    /// Set for functions.
    pub(crate) function: Option<Arc<dyn Function>>,
    service: Option<Arc<Service>>,
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
}

/// A started engine.
enum Started {
    Service(Service),
    Function(Arc<dyn Function>),
}

impl Starter {
    /// Starts an instance.
    pub(crate) async fn start(&self, id: &InstanceId, request: Deploy) -> Result<Instance, InstanceError> {
        let environment = open(&request.environment, &self.key, &request.sealed_by).map_err(InstanceError::Environment)?;
        let artifact = artifact::verify(&request.artifact, request.digest).await?;
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
            argv: request.argv,
            environment,
            precompiled,
            limits: Limits {
                call_time: Duration::from_millis(request.limits.call_timeout_ms),
                memory_bytes: request.limits.memory_bytes,
                concurrency: request.limits.concurrency,
                reply_bytes: request.limits.reply_bytes,
            },
            output,
            host: Arc::new(BusHostClient { bus: self.bus.clone(), agent: self.agent.clone(), instance: id.clone() }),
        };
        match self.start_engine(request.r#type, launch).await? {
            Started::Service(service) => Ok(self.watch(id, service, lines, scope)),
            Started::Function(function) => {
                let serving = TaskScope::new("serving");
                if let Some(triggers) = &request.triggers {
                    let report = Report { events: Arc::clone(&self.events), instance: id.clone() };
                    direct::serve(&serving, triggers, &function, request.limits.concurrency, report).await?;
                }
                Ok(Instance { function: Some(function), service: None, lines, serving, scope })
            }
        }
    }

    async fn start_engine(&self, kind: WorkloadType, launch: Launch) -> Result<Started, InstanceError> {
        match kind {
            WorkloadType::Native => {
                self.lockdown.for_service()?;
                Ok(Started::Service(Service::start(launch).await?))
            }
            WorkloadType::V8 => {
                // It opens /proc/self/pagemap, to find the pages that a call has written.
                let restore = jail::while_visible(&self.confinement, nex_engine_js::prepare);
                self.lockdown.for_function()?;
                let function = nex_engine_js::start(launch, restore).await?;
                Ok(Started::Function(Arc::new(function)))
            }
            WorkloadType::Wasm => {
                let instances = u32::try_from(launch.limits.concurrency).unwrap_or(u32::MAX).clamp(1, 1_024);
                let engine = nex_engine_wasm::Engine::new(nex_engine_wasm::EngineConfig { instances });
                // Wasmtime opens /proc/self/pagemap, to find the pages that a call has written.
                jail::while_visible(&self.confinement, || engine.prepare())?;
                self.lockdown.for_function()?;
                let started = engine.start(launch).await?;
                Ok(Started::Function(Arc::new(started.function)))
            }
            WorkloadType::Oci => Err(InstanceError::Unsupported(kind)),
        }
    }

    /// The end of a service is an event, and the last thing that is said of it.
    fn watch(&self, id: &InstanceId, service: Service, lines: Flush, scope: TaskScope) -> Instance {
        // Killed for memory before the agent is, which has to report it. Not every jail has files for that.
        std::fs::write(format!("/proc/{}/oom_score_adj", service.pid()), OOM_SCORE).ok();
        let service = Arc::new(service);
        let (watched, events, id, written) = (Arc::clone(&service), Arc::clone(&self.events), id.clone(), lines.clone());
        scope.spawn("exit", async move {
            let exit = watched.wait().await;
            written.lines().await;
            let exited = AgentEvent::Exited { code: exit.code, message: exit.signal.unwrap_or_default() };
            events.deliver(&id, &exited).await;
        });
        Instance { function: None, service: Some(service), lines, serving: TaskScope::new("serving"), scope }
    }
}

impl Instance {
    /// Stops it, politely for as long as the grace lasts: calls under way are answered, its last lines are forwarded.
    pub(crate) async fn stop(self, grace: Duration) {
        if let Some(service) = self.service {
            service.stop(grace).await;
        }
        self.serving.shutdown(grace).await;
        // A bus that is away does not keep us.
        tokio::time::timeout(LAST_LINES, self.lines.lines()).await.ok();
        self.scope.shutdown(Duration::ZERO).await;
    }
}

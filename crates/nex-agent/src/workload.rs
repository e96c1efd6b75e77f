//! The one workload of an agent: checked, started by the engine of its type, called, stopped.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_engine::native::Service;
use nex_engine::{Function, Launch, Limits, StartError};
use nex_process::confinement::Confinement;
use nex_process::{TaskScope, jail};
use nex_protocol::agent::{AgentEvent, Deploy, host_subject};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_protocol::seal::open;
use nkeys::XKey;

use crate::artifact;
use crate::calls;
use crate::host_client::BusHostClient;
use crate::output::{self, Flush};
use crate::report::Report;

/// What the kernel adds to a workload's share of memory, in thousandths, when it looks for whom to kill.
const WORKLOAD_FIRST: &str = "500";

/// A running workload; dropping it kills it.
pub(crate) struct Workload {
    /// Set for functions.
    pub(crate) function: Option<Arc<dyn Function>>,
    service: Option<Arc<Service>>,
    lines: Flush,
    serving: TaskScope,
    scope: TaskScope,
}

/// What an agent starts workloads with.
pub(crate) struct Starter {
    pub(crate) bus: Client,
    pub(crate) agent: WorkloadId,
    pub(crate) key: XKey,
    pub(crate) confinement: Confinement,
}

/// A started engine.
enum Started {
    Service(Service),
    Function(Arc<dyn Function>),
}

impl Starter {
    /// Starts the workload of a deploy request.
    ///
    /// # Errors
    /// A text for whoever deployed it.
    pub(crate) async fn start(&self, request: Deploy) -> Result<Workload, String> {
        let environment =
            open(&request.environment, &self.key, &request.sealed_by).map_err(|error| format!("its environment: {error}"))?;
        let artifact = artifact::verify(&request.artifact, request.digest).await?;
        let precompiled = match request.precompiled {
            // What is not what the node had made is not loaded; the agent compiles for itself then.
            Some(given) => artifact::verify(&given.path, given.digest).await.ok(),
            None => None,
        };
        let scope = TaskScope::new("workload");
        let (output, lines, carry) = output::to_bus(self.bus.clone(), &self.agent);
        scope.spawn("output", carry);
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
            host: Arc::new(BusHostClient { bus: self.bus.clone(), agent: self.agent.clone() }),
        };
        let started = start_engine(request.r#type, launch, &self.confinement).await.map_err(|error| chain(&error))?;
        match started {
            Started::Service(service) => Ok(self.watch(service, lines, scope)),
            Started::Function(function) => {
                let serving = TaskScope::new("serving");
                if let Some(triggers) = &request.triggers {
                    let report = Report { bus: self.bus.clone(), agent: self.agent.clone() };
                    calls::serve(&serving, triggers, &function, request.limits.concurrency, report).await?;
                }
                Ok(Workload { function: Some(function), service: None, lines, serving, scope })
            }
        }
    }

    /// The end of a service is an event, and the last thing that is said of it.
    fn watch(&self, service: Service, lines: Flush, scope: TaskScope) -> Workload {
        // Killed for memory before the agent is, which has to say so. Not every jail has files for that.
        std::fs::write(format!("/proc/{}/oom_score_adj", service.pid()), WORKLOAD_FIRST).ok();
        let service = Arc::new(service);
        let (watched, bus, subject) = (Arc::clone(&service), self.bus.clone(), host_subject(&self.agent, "events"));
        let written = lines.clone();
        scope.spawn("exit", async move {
            let exit = watched.wait().await;
            written.lines().await;
            let event = AgentEvent::Exited { code: exit.code, message: exit.signal.unwrap_or_default() };
            bus.publish(subject, serde_json::to_vec(&event).unwrap_or_default().into()).await.ok();
            bus.flush().await.ok();
        });
        Workload { function: None, service: Some(service), lines, serving: TaskScope::new("serving"), scope }
    }
}

impl Workload {
    /// Stops it, politely for as long as the grace lasts: calls under way are answered, its last lines are carried out.
    pub(crate) async fn stop(self, grace: Duration) {
        if let Some(service) = self.service {
            service.stop(grace).await;
        }
        self.serving.shutdown(grace).await;
        self.lines.lines().await;
        self.scope.shutdown(Duration::ZERO).await;
    }
}

async fn start_engine(kind: WorkloadType, launch: Launch, confinement: &Confinement) -> Result<Started, StartError> {
    match kind {
        WorkloadType::Native => Service::start(launch).await.map(Started::Service),
        WorkloadType::V8 => {
            let function = nex_engine_js::start(launch).await?;
            Ok(Started::Function(Arc::new(function)))
        }
        WorkloadType::Wasm => {
            let instances = u32::try_from(launch.limits.concurrency).unwrap_or(u32::MAX).clamp(1, 1_024);
            let engine = nex_engine_wasm::Engine::new(nex_engine_wasm::EngineConfig { instances });
            // Wasmtime opens /proc/self/pagemap, to find the pages that a call has written.
            jail::while_visible(confinement, || engine.prepare())?;
            let started = engine.start(launch).await?;
            Ok(Started::Function(Arc::new(started.function)))
        }
        WorkloadType::Oci => Err(StartError::Invalid("this agent has no engine for oci".to_owned())),
    }
}

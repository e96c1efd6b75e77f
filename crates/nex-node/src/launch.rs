//! From a checked workload to one that runs: lease an agent, bring the artifact in, have it started, subscribe its triggers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_host::{CallContext, HostServices};
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::{Deploy, DirectTriggers};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::host::HostError;
use nex_protocol::id::{NodeId, WorkloadId};
use nex_protocol::seal::seal;
use nkeys::XKey;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::agents::router::Report;
use crate::agents::{AgentSession, NotDeployed};
use crate::artifacts::Artifacts;
use crate::connections::Connections;
use crate::direct::Direct;
use crate::events::Events;
use crate::journal::{Journal, JournalError, WorkloadRecord};
use crate::logs::Log;
use crate::pool::{LeaseError, Pools};
use crate::trigger::{self, Outcome};
use crate::workload::spec::WorkloadSpec;

/// Host calls of one workload answered at once.
pub const HOST_CALLS: usize = 64;
/// Largest compiled module kept, bytes.
const COMPILED_BYTES: u64 = 256 * 1024 * 1024;

/// Agents tried before a workload counts as the one to blame for their end.
const TRIES: u32 = 2;
/// Time to answer calls whose agent is dead.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What drivers share: the means to start a workload on this node.
pub struct Launcher {
    /// Ready agents.
    pub pools: Pools<AgentSession>,
    /// The artifact cache.
    pub artifacts: Artifacts,
    /// The internal bus.
    pub bus: Client,
    /// The node's control connection.
    pub nats: Client,
    /// The node.
    pub node: NodeId,
    /// Its journal.
    pub journal: Journal,
    /// Its events.
    pub events: Events,
    /// The connections workloads use.
    pub connections: Connections,
    /// The host services.
    pub host: Arc<HostServices>,
    /// Where agents may subscribe by themselves.
    pub direct: Direct,
    /// Owner of the drivers.
    pub scope: TaskScope,
    /// Longest time of a start.
    pub deploy_timeout: Duration,
    /// Time a workload has to end by itself.
    pub stop_grace: Duration,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A workload that runs.
#[derive(Debug)]
pub struct Launched {
    /// Its agent.
    pub session: AgentSession,
    /// What the agent reports.
    pub reports: mpsc::Receiver<Report>,
    /// The relay's subscriptions, if there is one.
    pub triggers: Option<TaskScope>,
}

/// Ends a workload: triggers first, so no call is taken that cannot be answered, then the workload, then the sandbox.
/// Without any grace the agent is dead, and calls under way only need to say so.
pub async fn release(session: AgentSession, triggers: Option<TaskScope>, grace: Duration) {
    if let Some(triggers) = triggers {
        triggers.shutdown(grace.max(LAST_ANSWERS)).await;
    }
    if !grace.is_zero() {
        session.undeploy(grace).await;
    }
    session.end(Duration::from_millis(500)).await;
}

impl Launcher {
    /// Starts a workload on an agent of its own.
    ///
    /// # Errors
    /// A [`Failure`] that names the step and its cause; whatever was begun is undone.
    pub async fn launch(&self, spec: &WorkloadSpec, outcomes: mpsc::Sender<Outcome>, by: Deadline) -> Result<Launched, Failure> {
        let connection = self.connections.triggers(spec, by).await?;
        let direct = self.direct.triggers(spec, by).await;
        let mut tries = 1;
        let (session, reports) = loop {
            let mut session = self.lease(spec, by).await?;
            let reports =
                session.take_reports().ok_or_else(|| Failure::new(ErrorCode::Internal, "the agent was leased twice"))?;
            match self.start(spec, &session, direct.clone(), by).await {
                Ok(()) => break (session, reports),
                Err(NotDeployed::Unanswered(failure)) => {
                    if tries == TRIES || !session.is_lost(by).await || by.is_past() {
                        return Err(failure);
                    }
                    // It died while it was warm, or of the workload; the next one tells which.
                    tries += 1;
                }
                Err(NotDeployed::Rejected(failure)) => return Err(failure),
            }
        };
        let triggers = if spec.kind.is_function() && direct.is_none() {
            let relayed = trigger::relay(&connection, spec, &session.caller(), &outcomes).await;
            let relayed = relayed.map_err(|e| {
                Failure::new(ErrorCode::Failed, format!("Failed to deploy workload: its triggers cannot be subscribed: {e}"))
            })?;
            if let Err(denied) = self.connections.check_triggers(spec, by).await {
                release(session, Some(relayed), Duration::ZERO).await;
                return Err(denied);
            }
            Some(relayed)
        } else {
            None
        };
        Ok(Launched { session, reports, triggers })
    }

    async fn lease(&self, spec: &WorkloadSpec, by: Deadline) -> Result<AgentSession, Failure> {
        let class = spec.machine_class.as_deref();
        let pool = self.pools.of(class).ok_or_else(|| {
            let class = class.unwrap_or_default();
            Failure::new(ErrorCode::BadRequest, format!("Failed to deploy workload: this node has no machine class '{class}'"))
        })?;
        pool.lease(by).await.map_err(|error| match error {
            LeaseError::Deadline(_) | LeaseError::Closed => {
                let text = format!("Failed to get agent client from pool: {error}; try again, or raise machine_pool_size");
                Failure::new(ErrorCode::Unavailable, text)
            }
        })
    }

    async fn start(
        &self,
        spec: &WorkloadSpec,
        session: &AgentSession,
        direct: Option<DirectTriggers>,
        by: Deadline,
    ) -> Result<(), NotDeployed> {
        let request = self.request(spec, session, direct).await?;
        let answer = session.deploy(&request, by.remaining()).await?;
        if let Some(name) = answer.compiled.filter(|_| spec.kind == WorkloadType::Wasm) {
            self.keep_compiled(spec, session, &name);
        }
        Ok(())
    }

    /// The next start of the same artifact need not compile it. Failing at that costs only time.
    fn keep_compiled(&self, spec: &WorkloadSpec, session: &AgentSession, name: &str) {
        let kept = match session.open_out(name, COMPILED_BYTES) {
            Ok(file) => self.artifacts.keep_compiled(&spec.artifact.digest, file).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            tracing::debug!(workload_id = %spec.id, %error, "the compiled module is not kept");
        }
    }

    async fn request(
        &self,
        spec: &WorkloadSpec,
        session: &AgentSession,
        triggers: Option<DirectTriggers>,
    ) -> Result<Deploy, NotDeployed> {
        let failed = |why: String| Failure::new(ErrorCode::Failed, format!("Failed to deploy workload: {why}"));
        let handshake = session.handshake();
        if !handshake.engines.contains(&spec.kind) {
            return Err(NotDeployed::Rejected(failed(format!("this node's agent has no engine for {}", spec.kind))));
        }
        let artifact = session
            .admit(&spec.artifact.path, "artifact")
            .await
            .map_err(|e| NotDeployed::Unanswered(failed(format!("its artifact cannot be brought in: {e}"))))?;
        let precompiled = match self.artifacts.compiled(&spec.artifact.digest).filter(|_| spec.kind == WorkloadType::Wasm) {
            Some(path) => session.admit(&path, "precompiled").await.ok(),
            None => None,
        };
        let sender = XKey::new();
        let environment = seal(&spec.environment, &sender, &handshake.xkey)
            .map_err(|e| NotDeployed::Rejected(failed(format!("its environment cannot be sealed: {e}"))))?;
        Ok(Deploy {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            r#type: spec.kind,
            artifact,
            digest: spec.artifact.digest,
            precompiled,
            argv: spec.argv.clone(),
            environment,
            sealed_by: sender.public_key(),
            limits: spec.limits,
            triggers,
        })
    }

    /// The log of a workload.
    #[must_use]
    pub fn log(&self, spec: &WorkloadSpec) -> Log {
        Log::new(self.nats.clone(), &self.node, &spec.namespace, &spec.name, &spec.id)
    }

    /// Answers a host call of a workload, in a task of its own that holds the permit.
    pub fn host_call(&self, spec: &Arc<WorkloadSpec>, what: String, message: async_nats::Message, permit: OwnedSemaphorePermit) {
        let (host, connections, spec) = (Arc::clone(&self.host), self.connections.clone(), Arc::clone(spec));
        let bus = self.bus.clone();
        self.scope.spawn("host call", async move {
            let answer = match connections.host(&spec).await {
                Ok(client) => {
                    let context = CallContext { namespace: spec.namespace.clone(), workload: spec.name.clone(), nats: client };
                    host.call(&context, &what, &message).await
                }
                Err(failure) => Err(HostError { code: 500, message: failure.message }),
            };
            nex_host::respond(&bus, &message, answer).await;
            drop(permit);
        });
    }

    /// Refuses a host call of a workload that has too many under way.
    pub async fn refuse_host_call(&self, message: &async_nats::Message) {
        let busy = HostError { code: 503, message: format!("more than {HOST_CALLS} host calls of this workload are under way") };
        nex_host::respond(&self.bus, message, Err(busy)).await;
    }

    /// Lets go of what was held for a workload.
    pub fn forget(&self, spec: &WorkloadSpec) {
        for client in self.connections.forget(&spec.id) {
            self.host.forget(&client);
        }
    }

    /// Writes a workload into the journal: from here on it survives the node.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn record(&self, spec: &WorkloadSpec, agent: Option<&WorkloadId>) -> Result<(), JournalError> {
        let record = WorkloadRecord {
            namespace: spec.namespace.clone(),
            request: spec.request.clone(),
            digest: spec.artifact.digest,
            deployed_at: spec.deployed_at,
            agent: agent.unwrap_or(&spec.id).clone(),
        };
        self.journal.put_workload(&spec.id, &record)
    }
}

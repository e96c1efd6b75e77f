//! From a checked workload to an instance that runs: lease an agent, bring the artifact in, have it started, subscribe its triggers; or
//! take over one that ran when an earlier process was killed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_process::{Deadline, TaskScope};
use nex_protocol::agent::{Deploy, DirectTriggers, Precompiled};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::InstanceId;
use nex_protocol::seal::{Environment, seal};
use nex_sandbox::Sandbox;
use nkeys::XKey;

use super::launch_error::LaunchError;
use super::spec::WorkloadSpec;
use crate::agents::{Agent, AgentFactory, Instance};
use crate::artifacts::{Artifacts, Compiled, FetchError, RemoteArtifact};
use crate::call_reporter::CallReporter;
use crate::clock;
use crate::compiler::Compiler;
use crate::connections::Connections;
use crate::direct::Direct;
use crate::journal::RunningRecord;
use crate::offered_nats::NATS_URL;
use crate::pool::Pools;
use crate::trigger;

/// Agents tried before a workload counts as the one to blame for their end.
const MAX_AGENTS: u32 = 2;
/// Time an agent has to end.
const AGENT_GRACE: Duration = Duration::from_millis(500);
/// Time to answer calls whose agent is dead.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Starts workloads on this node's agents.
#[derive(Debug)]
pub struct Launcher {
    /// Ready agents.
    pub pools: Pools<Agent>,
    /// What makes them, and takes over those of an earlier process.
    pub factory: AgentFactory,
    /// The artifact cache.
    pub artifacts: Artifacts,
    /// What compiles WebAssembly for later starts.
    pub compiler: Compiler,
    /// The connection to the object stores that artifacts come from.
    pub nats: Client,
    /// The connections workloads use.
    pub connections: Connections,
    /// Where agents may subscribe by themselves.
    pub direct: Direct,
    /// What services are told of as `NATS_URL` where their deployers name no server.
    pub offered_nats: Option<String>,
}

/// An instance that runs.
#[derive(Debug)]
pub struct Launched {
    /// The instance.
    pub instance: Instance,
    /// The relay's subscriptions, if there is one.
    triggers: Option<TaskScope>,
    /// Of what the agent subscribed by itself.
    direct: Option<Digest>,
}

/// An agent that an earlier process left running with an instance of a workload; dropped, it is ended.
pub struct LeftRunning {
    /// Where it lives.
    pub sandbox: Box<dyn Sandbox>,
    /// What the journal has of it.
    pub running: RunningRecord,
}

impl std::fmt::Debug for LeftRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeftRunning").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Launched {
    /// What the journal keeps of it.
    #[must_use]
    pub fn record(&self) -> RunningRecord {
        let agent = self.instance.agent().record().clone();
        RunningRecord { agent, instance: self.instance.id().clone(), direct: self.direct }
    }

    /// Ends it in order: triggers first, so no call is taken that cannot be answered, then the instance.
    pub async fn undeploy(&mut self, grace: Duration) {
        if let Some(triggers) = self.triggers.take() {
            triggers.shutdown(grace.max(LAST_ANSWERS)).await;
        }
        self.instance.undeploy(grace).await;
    }

    /// Ends its agent; calls under way only need to hear that it is gone.
    pub async fn end(mut self) {
        if let Some(triggers) = self.triggers.take() {
            triggers.shutdown(LAST_ANSWERS).await;
        }
        self.instance.agent().end(AGENT_GRACE).await;
    }
}

impl Launcher {
    /// Starts a workload on an agent of its own.
    ///
    /// # Errors
    /// [`LaunchError`]; whatever was begun is undone.
    pub async fn launch(&self, spec: &WorkloadSpec, reporter: &CallReporter, by: Deadline) -> Result<Launched, LaunchError> {
        self.ensure_artifact(spec, by).await?;
        // Made before anything is started; used below.
        drop(self.connections.triggers(spec, by).await?);
        let direct = self.direct.triggers(spec, by).await;
        let mut tries = 1;
        let instance = loop {
            let agent = Arc::new(self.lease(spec, by).await?);
            let instance = agent.instance(InstanceId::new(clock::unix_seconds_u32()));
            match self.start(spec, &instance, direct.clone(), by).await {
                Ok(()) => break instance,
                // It died while it was warm, or of the workload; the next one tells which.
                Err(error) if error.is_the_agents() && tries < MAX_AGENTS && agent.is_lost(by).await && !by.is_past() => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let mut launched = Launched { instance, triggers: None, direct: digest_of(direct.as_ref()) };
        self.relay(spec, &mut launched, reporter, by).await?;
        Ok(launched)
    }

    /// Takes over what an earlier process started.
    ///
    /// # Errors
    /// [`LaunchError`]; its agent is ended.
    pub async fn adopt(
        &self,
        spec: &WorkloadSpec,
        left: LeftRunning,
        reporter: &CallReporter,
        by: Deadline,
    ) -> Result<Launched, LaunchError> {
        let LeftRunning { sandbox, running } = left;
        let agent = Arc::new(self.factory.adopt(running.agent, sandbox));
        // From here on its events are taken.
        let instance = agent.instance(running.instance);
        let adopted = async {
            let direct = digest_of(self.direct.triggers(spec, by).await.as_ref());
            if direct != running.direct {
                return Err(LaunchError::Adoption("its triggers are reached in another way now".to_owned()));
            }
            instance.runs(by).await.map_err(|lost| LaunchError::Adoption(lost.0))?;
            let mut launched = Launched { instance, triggers: None, direct };
            self.relay(spec, &mut launched, reporter, by).await?;
            Ok(launched)
        };
        let adopted = Box::pin(adopted).await;
        if adopted.is_err() {
            agent.end(AGENT_GRACE).await;
        }
        adopted
    }

    /// Subscribes the triggers of an instance that runs, unless its agent does.
    async fn relay(
        &self,
        spec: &WorkloadSpec,
        launched: &mut Launched,
        reporter: &CallReporter,
        by: Deadline,
    ) -> Result<(), LaunchError> {
        if spec.kind.is_function() && launched.direct.is_none() {
            let connection = self.connections.triggers(spec, by).await?;
            let invoker = launched.instance.invoker();
            launched.triggers = Some(trigger::relay(&connection, spec, &invoker, reporter).await?);
            self.connections.check_triggers(spec, by).await?;
        }
        Ok(())
    }

    /// What a workload of an earlier process ran may be gone from the cache.
    async fn ensure_artifact(&self, spec: &WorkloadSpec, by: Deadline) -> Result<(), LaunchError> {
        let digest = spec.artifact.digest;
        if self.artifacts.cached(&digest).is_some() {
            return Ok(());
        }
        let location = spec.request.location.as_ref().ok_or(FetchError::NoLocation)?;
        let replaced = || FetchError::Replaced { location: location.clone(), digest };
        let offer = RemoteArtifact::look_up(&self.nats, location, spec.request.jsdomain.as_deref(), by).await?;
        if offer.digest().is_some_and(|promised| promised != digest) {
            return Err(replaced().into());
        }
        let fetched = self.artifacts.take(offer, by).await?;
        if fetched.digest == digest { Ok(()) } else { Err(replaced().into()) }
    }

    async fn lease(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Agent, LaunchError> {
        let class = spec.machine_class.as_deref();
        let pool = self.pools.of(class).ok_or_else(|| LaunchError::MachineClass(class.unwrap_or_default().to_owned()))?;
        Ok(pool.lease(by).await?)
    }

    async fn start(
        &self,
        spec: &WorkloadSpec,
        instance: &Instance,
        direct: Option<DirectTriggers>,
        by: Deadline,
    ) -> Result<(), LaunchError> {
        let request = self.request(spec, instance.agent(), direct).await?;
        instance.deploy(&request, by).await?;
        if spec.kind == WorkloadType::Wasm {
            self.compiler.request(&spec.artifact);
        }
        Ok(())
    }

    fn environment<'a>(&self, spec: &'a WorkloadSpec) -> Cow<'a, Environment> {
        let is_named = || spec.environment.keys().any(|name| name.eq_ignore_ascii_case(NATS_URL));
        match &self.offered_nats {
            Some(url) if !spec.kind.is_function() && !is_named() => {
                let mut environment = spec.environment.clone();
                environment.insert(NATS_URL.to_owned(), url.clone());
                Cow::Owned(environment)
            }
            _ => Cow::Borrowed(&spec.environment),
        }
    }

    async fn request(&self, spec: &WorkloadSpec, agent: &Agent, triggers: Option<DirectTriggers>) -> Result<Deploy, LaunchError> {
        let handshake = agent.handshake();
        if !handshake.engines.contains(&spec.kind) {
            return Err(LaunchError::Engine(spec.kind));
        }
        if spec.kind.is_function() {
            // Before it sees anything of the workload: an engine needs no more than its bus and its NATS servers.
            agent.restrict_network().await.map_err(|error| LaunchError::Network(error.to_string()))?;
        }
        let artifact = agent.attach_file(&spec.artifact.path, "artifact").await;
        let artifact = artifact.map_err(|error| LaunchError::Artifact(error.to_string()))?;
        let precompiled = match self.artifacts.compiled(&spec.artifact.digest).filter(|_| spec.kind == WorkloadType::Wasm) {
            Some(Compiled { path, digest }) => {
                let seen = agent.attach_file(&path, "precompiled").await.ok();
                seen.map(|path| Precompiled { path, digest })
            }
            None => None,
        };
        let sender = XKey::new();
        let environment = seal(&self.environment(spec), &sender, &handshake.xkey)?;
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
}

fn digest_of(direct: Option<&DirectTriggers>) -> Option<Digest> {
    direct.map(|direct| Digest::of(&serde_json::to_vec(direct).unwrap_or_default()))
}

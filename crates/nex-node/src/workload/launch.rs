//! From a checked workload to an instance that runs: lease an agent, bring the artifact in, have it started, subscribe its triggers; or
//! take over one that ran when an earlier process was killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_nats::Client;
use nex_process::Deadline;
use nex_protocol::agent::{Deploy, DirectTriggers, Limits, Precompiled};
use nex_protocol::deploy::{Isolation, Location, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::id::InstanceId;
use nex_protocol::image::RUN_FILE;
use nex_protocol::seal::{Environment, seal};
use nex_sandbox::MachineSize;
use nkeys::XKey;
use tokio::sync::Semaphore;

use super::launch_error::LaunchError;
use super::launched::{AGENT_GRACE, Launched, LeftHome, LeftRunning};
use super::spec::WorkloadSpec;
use crate::agents::{Agent, AgentFactory, Instance, LeftAgent, Seat, SharedAgents};
use crate::artifacts::{Artifacts, Compiled, FetchError, RemoteArtifact};
use crate::call_reporter::CallReporter;
use crate::called::{Called, Service};
use crate::callees::{self, Callees};
use crate::clock;
use crate::compiler::Compiler;
use crate::connections::Connections;
use crate::direct::Direct;
use crate::durable::{Callee, DurableTriggers};
use crate::images::Images;
use crate::offered_nats::OfferedNats;
use crate::pool::Pools;
use crate::secrets::Secrets;
use crate::service_users::ServiceUsers;
use crate::trigger;

/// Agents tried before a workload counts as the one to blame for their end.
const MAX_AGENTS: u32 = 2;
/// One part in so many of a shared agent's memory is what one function's calls have together.
const MEMORY_SHARE: u64 = 4;

/// Starts workloads on this node's agents.
#[derive(Debug)]
pub struct Launcher {
    /// Ready agents.
    pub pools: Pools<Agent>,
    /// Agents that functions share.
    pub shared: SharedAgents,
    /// What makes them, and takes over those of an earlier process.
    pub factory: AgentFactory,
    /// The artifact cache.
    pub artifacts: Artifacts,
    /// What compiles WebAssembly for later starts.
    pub compiler: Compiler,
    /// What makes roots of images.
    pub images: Images,
    /// Sizes of the machines of each class.
    pub sizes: BTreeMap<String, MachineSize>,
    /// The connection to the object stores that artifacts come from.
    pub nats: Client,
    /// The connections workloads use.
    pub connections: Connections,
    /// Triggers that keep their messages.
    pub durable: DurableTriggers,
    /// How workloads are called by the node.
    pub callees: Callees,
    /// Where agents may subscribe by themselves.
    pub direct: Direct,
    /// What services are told of NATS where their deployers name no server.
    pub offered_nats: Option<OfferedNats>,
    /// What makes users of NATS for services, if the node does.
    pub service_users: Option<ServiceUsers>,
    /// What reads the secrets that workloads use.
    pub secrets: Secrets,
}

/// What an instance is started with.
struct Given<'a> {
    environment: &'a Environment,
    triggers: Option<DirectTriggers>,
}

impl Launcher {
    /// How far a workload is kept apart from others now.
    #[must_use]
    pub fn isolation(&self, spec: &WorkloadSpec) -> Isolation {
        match spec.isolation {
            Isolation::Isolate if self.shared.is_set_apart(&spec.id) => Isolation::Process,
            wanted => wanted,
        }
    }

    /// Starts a workload on an agent of its own, or on one that it shares.
    ///
    /// # Errors
    /// [`LaunchError`]; whatever was begun is undone.
    pub async fn launch(&self, spec: &Arc<WorkloadSpec>, reporter: &CallReporter, by: Deadline) -> Result<Launched, LaunchError> {
        self.ensure_artifact(spec, by).await?;
        let environment = self.environment(spec, by).await?;
        let image = match spec.kind {
            WorkloadType::Oci => Some(self.images.root(&spec.artifact, by).await?),
            WorkloadType::Wasm => {
                self.compiler.prepare(&spec.artifact, by).await?;
                None
            }
            WorkloadType::Native | WorkloadType::V8 => None,
        };
        // Made before anything is started; used below.
        drop(self.connections.triggers(spec, by).await?);
        let direct = self.direct.triggers(spec, by).await;
        let mut tries = 1;
        let (instance, seat) = loop {
            let id = InstanceId::new(clock::unix_seconds_u32());
            let (agent, seat) = match &image {
                Some(image) => (Arc::new(self.agent_of_an_image(spec, image.clone(), by).await?), None),
                None if self.isolation(spec) == Isolation::Isolate => {
                    let seat = self.shared.sit(&spec.namespace, &id, by).await.map_err(LaunchError::SharedAgent)?;
                    (Arc::clone(seat.agent()), Some(seat))
                }
                None => (Arc::new(self.lease(spec, by).await?), None),
            };
            let instance = Instance::new(agent, id);
            let given = Given { environment: &environment, triggers: direct.clone() };
            match self.start(spec, (&instance, seat.is_some()), given, by).await {
                Ok(()) => break (instance, seat),
                // It died while it was warm, or of the workload; the next one tells which.
                Err(error)
                    if error.is_the_agents() && tries < MAX_AGENTS && instance.agent().is_lost(by).await && !by.is_past() =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let (direct, since, secrets) = (digest_of(direct.as_ref()), clock::unix_seconds(), spec.secrets.versions());
        let mut launched = Launched { instance, seat, triggers: Vec::new(), direct, since, secrets };
        self.relay(spec, &mut launched, reporter, by).await?;
        Ok(launched)
    }

    /// Takes over what an earlier process started.
    ///
    /// # Errors
    /// [`LaunchError`]; its agent is ended.
    pub async fn adopt(
        &self,
        spec: &Arc<WorkloadSpec>,
        left: LeftRunning,
        reporter: &CallReporter,
        by: Deadline,
    ) -> Result<Launched, LaunchError> {
        let LeftRunning { home, running } = left;
        let (agent, shared) = match home {
            LeftHome::Own(sandbox) => (Arc::new(self.factory.adopt(running.agent, Arc::from(sandbox))), None),
            LeftHome::Shared(left) => {
                let (seat, left) = self.shared.adopt(&spec.namespace, (&running.agent, left), &running.instance);
                (Arc::clone(seat.agent()), Some((seat, left)))
            }
        };
        // From here on its events are taken.
        let instance = Instance::new(Arc::clone(&agent), running.instance);
        let adopted = async {
            let direct = digest_of(self.direct.triggers(spec, by).await.as_ref());
            if direct != running.direct {
                return Err(LaunchError::Adoption("its triggers are reached in another way now".to_owned()));
            }
            let seat = self.reseat(spec, &instance, shared, by).await?;
            spec.secrets.had(&running.secrets);
            let (since, secrets) = (running.since, running.secrets);
            let mut launched = Launched { instance, seat, triggers: Vec::new(), direct, since, secrets };
            self.relay(spec, &mut launched, reporter, by).await?;
            Ok(launched)
        };
        let adopted = Box::pin(adopted).await;
        if adopted.is_err() && !running.is_shared {
            agent.end(AGENT_GRACE).await;
        }
        adopted
    }

    /// Waits until an instance that was left running is known to be there, on an agent that it may share still.
    async fn reseat(
        &self,
        spec: &WorkloadSpec,
        instance: &Instance,
        shared: Option<(Seat, Arc<LeftAgent>)>,
        by: Deadline,
    ) -> Result<Option<Seat>, LaunchError> {
        let may_share = spec.isolation == Isolation::Isolate;
        match shared {
            Some(_) if !may_share => Err(LaunchError::Adoption("it shares no agent any more".to_owned())),
            Some((seat, left)) => match left.has(instance.agent(), instance.id(), by).await {
                Ok(true) => Ok(Some(seat)),
                Ok(false) => Err(LaunchError::Adoption("its agent has no instance of it any more".to_owned())),
                Err(lost) => Err(LaunchError::Adoption(lost.0)),
            },
            None => {
                if may_share {
                    self.shared.set_apart(&spec.id);
                }
                instance.runs(by).await.map_err(|lost| LaunchError::Adoption(lost.0))?;
                Ok(None)
            }
        }
    }

    /// Subscribes the triggers of an instance that runs, unless its agent does. A service subscribes its subjects itself.
    async fn relay(
        &self,
        spec: &Arc<WorkloadSpec>,
        launched: &mut Launched,
        reporter: &CallReporter,
        by: Deadline,
    ) -> Result<(), LaunchError> {
        let called = &match spec.kind.is_function() {
            true => Called::Function(launched.instance.invoker()),
            false if spec.durable.is_empty() => return Ok(()),
            false => Called::Service(Service::new(self.connections.triggers(spec, by).await?, spec)),
        };
        let slots = &Arc::new(Semaphore::new(spec.limits.concurrency));
        self.callees.put(&spec.id, callees::Callee { called: called.clone(), slots: Arc::clone(slots) });
        if launched.direct.is_some() {
            return Ok(());
        }
        let connection = self.connections.triggers(spec, by).await?;
        launched.triggers.push(trigger::relay(&connection, spec, called, reporter, slots).await?);
        self.connections.check_triggers(spec, by).await?;
        launched.triggers.extend(self.durable.serve(spec, Callee { called, reporter, slots }, by).await?);
        Ok(())
    }

    /// What a workload of an earlier process ran may be gone from the cache.
    async fn ensure_artifact(&self, spec: &WorkloadSpec, by: Deadline) -> Result<(), LaunchError> {
        let digest = spec.artifact.digest;
        if self.artifacts.cached(&digest).is_some()
            || (spec.kind == WorkloadType::Oci && self.artifacts.image_root(&digest).is_some())
        {
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

    /// An agent whose root is the image: none of those that wait, which have roots already.
    async fn agent_of_an_image(&self, spec: &WorkloadSpec, image: PathBuf, by: Deadline) -> Result<Agent, LaunchError> {
        let size = match spec.machine_class.as_deref() {
            Some(class) => Some(*self.sizes.get(class).ok_or_else(|| LaunchError::MachineClass(class.to_owned()))?),
            None => None,
        };
        self.factory.with_image(image, size, by).await.map_err(LaunchError::ImageAgent)
    }

    async fn start(
        &self,
        spec: &WorkloadSpec,
        (instance, is_shared): (&Instance, bool),
        given: Given<'_>,
        by: Deadline,
    ) -> Result<(), LaunchError> {
        // On an agent with others each has its files, for as long as it takes to read them.
        let names = match is_shared {
            true => [instance.id().to_string(), format!("{}.compiled", instance.id())],
            false => ["artifact", "precompiled"].map(str::to_owned),
        };
        let started = async {
            let request = self.request(spec, (instance.agent(), is_shared), &names, given).await?;
            Ok::<_, LaunchError>(instance.deploy(&request, by).await?)
        };
        let started = Box::pin(started).await;
        if is_shared {
            for name in &names {
                instance.agent().detach_file(name).await;
            }
        }
        started?;
        if spec.kind == WorkloadType::Wasm {
            self.compiler.request(&spec.artifact);
        }
        Ok(())
    }

    async fn request(
        &self,
        spec: &WorkloadSpec,
        (agent, is_shared): (&Agent, bool),
        [artifact_name, compiled_name]: &[String; 2],
        given: Given<'_>,
    ) -> Result<Deploy, LaunchError> {
        let Given { environment, triggers } = given;
        let handshake = agent.handshake();
        if !handshake.engines.contains(&spec.kind) {
            return Err(LaunchError::Engine(spec.kind));
        }
        if spec.kind.is_function() && !is_shared {
            // Before it sees anything of the workload: an engine needs no more than its bus and its NATS servers.
            agent.restrict_network().await.map_err(|error| LaunchError::Network(error.to_string()))?;
        }
        let artifact = match spec.kind {
            WorkloadType::Oci => format!("/{RUN_FILE}"),
            WorkloadType::Native | WorkloadType::V8 | WorkloadType::Wasm => {
                let artifact = agent.attach_file(&spec.artifact.path, artifact_name).await;
                artifact.map_err(|error| LaunchError::Artifact(error.to_string()))?
            }
        };
        let precompiled = match self.artifacts.compiled(&spec.artifact.digest).filter(|_| spec.kind == WorkloadType::Wasm) {
            Some(Compiled { path, digest }) => {
                let seen = agent.attach_file(&path, compiled_name).await.ok();
                seen.map(|path| Precompiled { path, digest })
            }
            None => None,
        };
        let sender = XKey::new();
        let environment = seal(environment, &sender, &handshake.xkey)?;
        Ok(Deploy {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            r#type: spec.kind,
            artifact,
            digest: spec.artifact.digest,
            is_shared,
            is_typescript: spec.request.location.as_ref().is_some_and(Location::is_typescript),
            precompiled,
            argv: spec.argv.clone(),
            environment,
            sealed_by: sender.public_key(),
            limits: if is_shared { shared_limits(spec.limits, self.shared.memory_bytes()) } else { spec.limits },
            triggers,
            health: spec.policy.health.clone(),
        })
    }
}

/// The limits of a function on an agent that it shares: all its calls together have no more than a part of the memory.
fn shared_limits(limits: Limits, memory_bytes: u64) -> Limits {
    let fitting = memory_bytes / MEMORY_SHARE / limits.memory_bytes.max(1);
    let concurrency = limits.concurrency.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(1);
    Limits { concurrency, ..limits }
}

fn digest_of(direct: Option<&DirectTriggers>) -> Option<Digest> {
    direct.map(|direct| Digest::of(&serde_json::to_vec(direct).unwrap_or_default()))
}

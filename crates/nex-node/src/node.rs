//! The node: everything started in order, and stopped in the reverse of it.
//!
//! Start: state directory and keys → user's NATS → internal bus → what an earlier process left is taken over or removed → pool → control
//! API → `node_started`. Stop: no new requests → workloads → pool → bus → `node_stopped`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_bus::connect::{ConnectError, connect_with};
use nex_bus::denials::{Action, Denial, Denials};
use nex_bus::settings::ConnectionSettings;
use nex_host::HostServices;
use nex_process::{Deadline, TaskScope};
use nex_protocol::id::WorkloadId;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::agents::{AgentFactory, AgentRouter};
use crate::artifacts::Artifacts;
use crate::bus::{BusError, BusKeys, InternalBus};
use crate::compiler::Compiler;
use crate::config::NodeConfig;
use crate::connections::Connections;
use crate::control::ControlApi;
use crate::direct::Direct;
use crate::ended::EndedWorkloads;
use crate::events::Events;
use crate::host_calls::HostCallServer;
use crate::identity::Identity;
use crate::journal::{Journal, JournalError, WorkloadRecord};
use crate::leftovers;
use crate::namespace_connections::NamespaceConnections;
use crate::offered_nats;
use crate::outbox::Outbox;
use crate::pool::{Pools, Status as PoolStatus};
use crate::registry::Registry;
use crate::restore;
use crate::sandbox::{Host, SandboxError, Sandboxes};
use crate::state_dir::{self, StateDir, StateError};
use crate::status::{NodeStatus, VERSION};
use crate::tail::Tails;
use crate::workload::Workloads;
use crate::workload::driver::Timeouts;
use crate::workload::launch::Launcher;
use crate::workload::runtime::DriverServices;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Longest wait for NATS when the node stops; it may be gone.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause before NATS is tried again by a node that has workloads to start.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// What a node is started with.
pub struct NodeOptions {
    /// The user's NATS.
    pub connection: ConnectionSettings,
    /// The configuration.
    pub config: NodeConfig,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// The `nex-agent` program.
    pub agent_binary: PathBuf,
    /// The `nats-server` program.
    pub nats_server: PathBuf,
    /// Where kernel, root image and programs of microVMs lie, unless the configuration says otherwise.
    pub resource_dir: PathBuf,
    /// Name of the group of nodes.
    pub nexus: String,
}

impl std::fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions")
            .field("connection", &self.connection)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// Why a node did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The user's NATS.
    #[error("failed to connect to NATS server")]
    Connect(#[from] ConnectError),
    /// The sandboxes.
    #[error("failed to prepare the sandboxes")]
    Sandboxes(#[from] SandboxError),
    /// The guests' network.
    #[error("failed to let microVMs reach the internal NATS server")]
    Network(#[from] nex_network::NetworkError),
    /// The internal bus.
    #[error("failed to start the internal NATS server")]
    Bus(#[from] BusError),
    /// The user's NATS does not permit what a node needs.
    #[error("the node cannot answer")]
    Denied(#[from] Denial),
    /// A connection that stood refused a subscription.
    #[error("failed to subscribe on NATS")]
    Nats(#[source] async_nats::Error),
    /// A context that the configuration names for the host services of a namespace.
    #[error("the host services of a namespace have no usable NATS context")]
    HostServiceContext(#[from] nex_bus::context::ContextError),
    /// The host services' configuration.
    #[error("the host services cannot be used:\n  - {}", .0.join("\n  - "))]
    HostServices(Vec<String>),
    /// The very first agent could not be made: there is no reason to go on.
    #[error("the first agent could not be made: {0}; next: run 'nex node preflight' to see what this host lacks")]
    FirstAgent(String),
}

/// What a node has before it connects to anything.
struct NodeResources {
    state: StateDir,
    identity: Identity,
    journal: Journal,
    sandboxes: Sandboxes,
    denials: Denials,
    services: nex_host::Config,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    nats: Client,
    admission: Arc<Admission>,
    control: ControlApi,
    bus: InternalBus,
    sandboxes: Sandboxes,
    background: TaskScope,
    agents: TaskScope,
    /// Owner of the outbox's task.
    telling: TaskScope,
    _state: StateDir,
}

impl Node {
    /// Starts a node; when this returns, it answers.
    ///
    /// # Errors
    /// [`NodeError`]; whatever was begun is undone.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        // Boxed: it is large, and there is one per process.
        Box::pin(Self::begin(options)).await
    }

    async fn begin(options: NodeOptions) -> Result<Self, NodeError> {
        for warning in &options.config.warnings {
            tracing::warn!("{warning}");
        }
        let state = state_dir::patiently(|| StateDir::open(&options.state_dir)).await?;
        let identity = Identity::load(&state, options.nexus.clone())?;
        let journal = Journal::open(&state.path("journal.redb"))?;
        let host = Host {
            node: &identity.node,
            state_dir: state.root(),
            agent_binary: &options.agent_binary,
            resource_dir: &options.resource_dir,
            nats: &addresses(&options).await,
        };
        let services = options.config.host_services.services.iter();
        let services = services.map(|(name, it)| (name.clone(), it.enabled, it.config.clone()));
        let services = nex_host::Config::new(services).map_err(NodeError::HostServices)?;
        let (left, bus) = (journal.workloads()?, journal.bus()?);
        let sandboxes = Box::pin(Sandboxes::open(&options.config, host)).await?;
        if let Some(bus) = bus.filter(|bus| bus.process.is_alive())
            // Agents that were left running lose it for no longer than they have to.
            && let Err(error) = sandboxes.permit_bus(bus.port()).await
        {
            tracing::debug!(%error, "agents that were left running do not reach their bus yet");
        }
        let denials = Denials::default();
        let nats = match reach(&options.connection, &denials, !left.is_empty()).await {
            Ok(nats) => nats,
            Err(error) => {
                if left.is_empty() {
                    sandboxes.sweep(&BTreeSet::new()).await;
                    sandboxes.close().await;
                }
                // What runs goes on otherwise, and its network with it: the next process may be let in.
                return Err(error.into());
            }
        };
        let resources = NodeResources { state, identity, journal, sandboxes: sandboxes.clone(), denials, services };
        let begun = Box::pin(Self::begin_on(resources, options, nats, left)).await;
        if begun.is_err() {
            // What was not taken over yet, and the network, which outlives this process.
            sandboxes.sweep(&BTreeSet::new()).await;
            sandboxes.close().await;
        }
        begun
    }

    async fn begin_on(
        resources: NodeResources,
        options: NodeOptions,
        nats: Client,
        left: Vec<(WorkloadId, WorkloadRecord)>,
    ) -> Result<Self, NodeError> {
        let NodeResources { state, identity, journal, sandboxes, denials, services } = resources;
        let NodeOptions { connection, config, nats_server, .. } = options;
        let (identity, config) = (Arc::new(identity), Arc::new(config));
        let artifacts = Artifacts::new(state.path("artifacts"));
        artifacts.sweep();
        tracing::info!("Established node NATS connection to: {}", connection.shown_servers());
        let keys = Arc::new(BusKeys::load(&state)?);
        let listen = (sandboxes.bus_host(), config.bus_port);
        let bus = InternalBus::start(nats_server, state.path("bus"), Arc::clone(&keys), listen, journal.clone()).await?;
        sandboxes.permit_bus(bus.port()).await?;
        tracing::info!(client_url = bus.url(), "Internal NATS server started");
        let left = leftovers::take_over(left, &sandboxes).await;
        let agents = TaskScope::new("agents");
        let telling = TaskScope::new("telling");
        let outbox = Outbox::start(&telling, nats.clone(), journal.clone());
        for (workload, event) in journal.owed()? {
            tracing::info!(workload_id = %workload, "an earlier process of this node did not tell that it ended");
            outbox.owed(workload, &event);
        }
        let parts = DriverParts {
            nats: &nats,
            denials: denials.clone(),
            outbox: &outbox,
            bus: &bus,
            keys,
            journal,
            artifacts,
            sandboxes: &sandboxes,
            agents: &agents,
        };
        let drivers = parts.services(&config, &identity, connection, services).await?;
        let status = Arc::new(NodeStatus::new(&config, sandboxes.tags(), &identity));
        let admission = Arc::new(Admission { registry: Registry::new(config.node_limits), identity, config, drivers, outbox });
        let returning = restore::admit(&admission, left);
        let control = ControlApi::start(&nats, &status, &admission).await.map_err(NodeError::Nats)?;
        denials.settle(&nats).await;
        if let Some(denial) = denials.take(|denial| denial.action == Action::Subscribe && denial.subject.starts_with("$NEX.")) {
            return Err(denial.into());
        }
        let Admission { identity, registry, drivers: services, .. } = &*admission;
        tracing::info!(public_xkey = %identity.xkey.public_key(), "Use this key as the recipient for encrypted run requests");
        tracing::info!(id = %identity.node, version = VERSION, "NATS execution engine awaiting commands");
        services.events.node_started(&status.tags());
        let background = TaskScope::new("background");
        let beats = heartbeat(services.events.clone(), Arc::clone(identity), status, registry.clone());
        background.spawn("heartbeat", beats);
        background.spawn("restore", restore::run(Arc::clone(&admission), returning));
        Ok(Self { nats, admission, control, bus, sandboxes, background, agents, telling, _state: state })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.admission.identity
    }

    /// Its control connection.
    #[must_use]
    pub fn nats(&self) -> &Client {
        &self.nats
    }

    /// Its workloads.
    #[must_use]
    pub fn registry(&self) -> &Workloads {
        &self.admission.registry
    }

    /// How its pool of standard agents is.
    #[must_use]
    pub fn pool_status(&self) -> watch::Receiver<PoolStatus> {
        self.admission.drivers.launcher.pools.status()
    }

    /// Waits until an agent is warm.
    ///
    /// # Errors
    /// [`NodeError::FirstAgent`] when the very first one cannot be made.
    pub async fn warm(&self) -> Result<(), NodeError> {
        let mut status = self.pool_status();
        let seen = status.wait_for(|status| status.proven || status.last_failure.is_some()).await;
        match seen.ok().and_then(|status| status.last_failure.clone().filter(|_| !status.proven)) {
            Some(why) => Err(NodeError::FirstAgent(why)),
            None => Ok(()),
        }
    }

    /// Stops everything, in order, and leaves nothing behind.
    pub async fn stop(self) {
        let Admission { config, registry, drivers, outbox, .. } = &*self.admission;
        self.control.stop(Duration::from_secs(2)).await;
        // Nothing is restored from here on: what was not started yet stays in the journal.
        self.background.shutdown(Duration::ZERO).await;
        let workloads = registry.all();
        futures::future::join_all(workloads.iter().map(|workload| workload.shut_down("node shutdown"))).await;
        drivers.scope.shutdown(config.stop_grace).await;
        drivers.launcher.compiler.stop().await;
        // The warm agents go with the pool's driver.
        self.agents.shutdown(Duration::from_secs(5)).await;
        self.sandboxes.close().await;
        self.bus.stop().await;
        if Deadline::after(SHUTDOWN_TIMEOUT).bound(publish_shutdown(&drivers.events, outbox, &self.nats)).await.is_err() {
            tracing::warn!("NATS does not answer, so nobody was told that this node stops");
        }
        self.telling.shutdown(Duration::ZERO).await;
        tracing::info!("node stopped");
    }
}

async fn publish_shutdown(events: &Events, outbox: &Outbox, nats: &Client) {
    events.node_stopped();
    outbox.flushed(Deadline::after(SHUTDOWN_TIMEOUT)).await;
    if let Err(error) = nats.drain().await {
        tracing::debug!(%error, "the control connection was closed already");
    }
    nats.flush().await.ok();
}

/// What the drivers' services are made of.
struct DriverParts<'a> {
    nats: &'a Client,
    denials: Denials,
    outbox: &'a Outbox,
    bus: &'a InternalBus,
    keys: Arc<BusKeys>,
    journal: Journal,
    artifacts: Artifacts,
    sandboxes: &'a Sandboxes,
    agents: &'a TaskScope,
}

impl DriverParts<'_> {
    /// Listens to agents, begins to warm some, and gives what drivers need to start workloads on them.
    async fn services(
        self,
        config: &NodeConfig,
        identity: &Identity,
        connection: ConnectionSettings,
        host: nex_host::Config,
    ) -> Result<Arc<DriverServices>, NodeError> {
        let DriverParts { nats, denials, outbox, bus, keys, journal, artifacts, sandboxes, agents } = self;
        let timeouts = sandboxes.timeouts();
        let events = Events::new(outbox.clone(), &identity.node, VERSION);
        let router = AgentRouter::start(agents, bus.client().clone()).await.map_err(|e| NodeError::Nats(e.into()))?;
        let factory = AgentFactory {
            keys,
            bus_url: bus.url().to_owned(),
            bus_certificate: bus.certificate().to_owned(),
            bus: bus.client().clone(),
            router,
            sandboxes: sandboxes.provider(),
            events: events.clone(),
            size: None,
            handshake_timeout: config.handshake_timeout.unwrap_or(timeouts.handshake),
            ping_timeout: config.ping_timeout,
        };
        let mut pools = Pools::start(agents, factory.clone(), config.pool_size);
        for (name, class) in &config.microvm.classes {
            pools.add(name.clone(), agents, AgentFactory { size: Some(class.size), ..factory.clone() }, class.pool_size);
        }
        let namespaces = NamespaceConnections::load(&config.host_services)?;
        let connections = Connections::new((nats.clone(), denials), connection, config, namespaces);
        let direct = Direct::new(connections.clone(), sandboxes.reach(), config.anonymous_functions);
        let offered_nats = offered_nats::offer(&connections, &sandboxes.reach());
        let host_calls = HostCallServer {
            host: Arc::new(HostServices::new(host)),
            connections: connections.clone(),
            bus: bus.client().clone(),
        };
        Ok(Arc::new(DriverServices {
            tails: Tails::default(),
            ended: EndedWorkloads::default(),
            launcher: Launcher {
                pools,
                factory,
                compiler: Compiler::new(sandboxes.compiler(), artifacts.clone()),
                artifacts,
                nats: nats.clone(),
                connections,
                direct,
                offered_nats,
            },
            host_calls,
            journal,
            events,
            timeouts: Timeouts { deploy: config.deploy_timeout.unwrap_or(timeouts.deploy), stop_grace: config.stop_grace },
            scope: TaskScope::new("workloads"),
        }))
    }
}

/// Connects to the user's NATS. A node without workloads says at once what is wrong; one that has some waits for NATS: they come back with
/// it.
async fn reach(connection: &ConnectionSettings, denials: &Denials, has_workloads: bool) -> Result<Client, ConnectError> {
    loop {
        match connect_with(connection, denials).await {
            Err(error) if has_workloads && matches!(error, ConnectError::Unreachable { .. }) => {
                let error = nex_protocol::envelope::chain(&error);
                tracing::warn!(error, "NATS is away; this node has workloads to start again and waits for it");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            reached => return reached,
        }
    }
}

/// Where the user's NATS servers are, the node's and the workloads', as far as that can be looked up now.
async fn addresses(options: &NodeOptions) -> Vec<SocketAddr> {
    let workloads = options.config.host_services.nats_url.as_deref().map(nex_bus::settings::split_servers);
    let mut found = Vec::new();
    for server in options.connection.servers.iter().chain(workloads.iter().flatten()) {
        let host = server.split_once("://").map_or(server.as_str(), |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host).trim_end_matches('/');
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:4222") };
        match tokio::net::lookup_host(&host).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::debug!(host, %error, "the address of a NATS server cannot be looked up"),
        }
    }
    found
}

async fn heartbeat(events: Events, identity: Arc<Identity>, status: Arc<NodeStatus>, registry: Workloads) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        events.heartbeat(&identity.nexus, &status.uptime(), &status.tags(), registry.count());
    }
}

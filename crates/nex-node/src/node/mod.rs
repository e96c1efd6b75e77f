//! The node: everything started in order, and stopped in the reverse of it.
//!
//! Start: state directory and keys → user's NATS → internal bus → what an earlier process left is taken over or removed → pool → control
//! API → `node_started`. Stop: no new requests → workloads → pool → bus → `node_stopped`.

mod error;
mod options;
mod parts;
mod reach;
mod telling;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_bus::denials::{Action, Denial, Denials};
use nex_http::{Gateway, GatewayError, HttpConfig};
use nex_process::TaskScope;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::WorkloadId;
use nex_protocol::subject;
use tokio::sync::watch;

pub use self::error::NodeError;
pub use self::options::NodeOptions;
use self::parts::DriverParts;
pub(crate) use self::reach::addresses;
use self::reach::reach;
use crate::admission::Admission;
use crate::artifacts::Artifacts;
use crate::bus::{BusKeys, InternalBus, Listen, server_lacks};
use crate::config::{LiveConfig, NodeConfig};
use crate::control::ControlApi;
use crate::history::History;
use crate::identity::Identity;
use crate::journal::{Damage, Journal, WorkloadRecord};
use crate::leftovers;
use crate::pool::Status as PoolStatus;
use crate::quota::DeployRates;
use crate::registry::Registry;
use crate::rehearsal;
use crate::restore;
use crate::rotation;
use crate::sandbox::{Host, Sandboxes};
use crate::service_users::{self, ServiceUsers};
use crate::state_dir::{self, StateDir};
use crate::status::{Drain, NodeStatus, VERSION};
use crate::workload::Workloads;

/// What a node has before it connects to anything.
struct NodeResources {
    state: StateDir,
    identity: Identity,
    journal: Journal,
    sandboxes: Sandboxes,
    denials: Denials,
    services: nex_host::Config,
    users: Option<ServiceUsers>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    nats: Client,
    status: Arc<NodeStatus>,
    admission: Arc<Admission>,
    control: ControlApi,
    http: Option<Gateway>,
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

    async fn begin(mut options: NodeOptions) -> Result<Self, NodeError> {
        for warning in &options.config.warnings {
            tracing::warn!("{warning}");
        }
        let state = state_dir::patiently(|| StateDir::open(&options.state_dir)).await?;
        let identity = Identity::load(&state, options.nexus.clone())?;
        let journal = Journal::open(&state.path("journal.redb"))?;
        if let Some(Damage { why, kept, workloads }) = journal.damage() {
            tracing::error!(
                why, kept = %kept.display(), workloads,
                "the node's journal was damaged and begins again with the workloads that could be read; what else ran is ended; next: check \
                 the disk under the state directory, and deploy again what is missing"
            );
        }
        let host = Host {
            node: &identity.node,
            state_dir: state.root(),
            agent_binary: &options.agent_binary,
            resource_dir: &options.resource_dir,
            nats: &addresses(&options).await,
        };
        let services = rehearsal::host_services(&options.config)?;
        let (mut left, bus) = (journal.workloads()?, journal.bus()?);
        if options.config.fresh {
            leftovers::forget(std::mem::take(&mut left), &journal, &identity.node).await?;
        }
        let sandboxes = Box::pin(Sandboxes::open(&options.config, host, &leftovers::sandboxes(&left))).await?;
        if let Some(bus) = bus.filter(|bus| bus.process.is_alive())
            // Agents that were left running lose it for no longer than they have to.
            && let Err(error) = sandboxes.permit_bus(bus.port()).await
        {
            tracing::debug!(%error, "agents that were left running do not reach their bus yet");
        }
        options.config.isolation.offered = sandboxes.isolations();
        if let Some(contradiction) = options.config.isolation.contradiction() {
            if left.is_empty() {
                sandboxes.sweep(&BTreeSet::new()).await;
                sandboxes.close().await;
            }
            return Err(NodeError::Isolation(contradiction));
        }
        let denials = Denials::default();
        let (nats, users) = match Box::pin(connect(&options, &denials, !left.is_empty())).await {
            Ok(connected) => connected,
            Err(error) => {
                if left.is_empty() {
                    sandboxes.sweep(&BTreeSet::new()).await;
                    sandboxes.close().await;
                }
                // What runs goes on otherwise, and its network with it: the next process may be let in.
                return Err(error);
            }
        };
        let resources = NodeResources { state, identity, journal, sandboxes: sandboxes.clone(), denials, services, users };
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
        let NodeResources { state, identity, journal, sandboxes, denials, services, users } = resources;
        let NodeOptions { connection, mut config, nats_server, .. } = options;
        leave_out_images(&mut config, &sandboxes);
        let identity = Arc::new(identity);
        let artifacts = Artifacts::new(state.path("artifacts"));
        artifacts.sweep();
        tracing::info!("Established node NATS connection to: {}", connection.shown_servers());
        let keys = Arc::new(BusKeys::load(&state)?);
        let (host, taken) = sandboxes.bus_place();
        let listen = Listen { host, port: config.bus_port, taken };
        let bus = InternalBus::start(nats_server, state.path("bus"), Arc::clone(&keys), listen, journal.clone()).await?;
        sandboxes.permit_bus(bus.port()).await?;
        tracing::info!(client_url = bus.url(), "Internal NATS server started");
        let left = leftovers::take_over(left, &sandboxes).await;
        let (agents, telling) = (TaskScope::new("agents"), TaskScope::new("telling"));
        let history = History::open(state.path("history"), config.history_bytes, &identity.node);
        let outbox = telling::begin(&telling, &nats, &journal, &history)?;
        let parts = DriverParts {
            nats: &nats,
            denials: denials.clone(),
            outbox: &outbox,
            history,
            bus: &bus,
            keys,
            journal,
            artifacts,
            sandboxes: &sandboxes,
            agents: &agents,
            service_users: users,
        };
        let drivers = parts.services(&config, &identity, connection, services).await?;
        let status = Arc::new(NodeStatus::new(&config, sandboxes.tags(), &identity));
        let admission = Arc::new(Admission {
            registry: Registry::new(config.node_limits),
            rates: DeployRates::default(),
            identity,
            config: LiveConfig::new(config),
            state: state.root().to_owned(),
            drivers,
            outbox,
        });
        let http = serve_http(&nats, admission.config.now().http.clone()).await?;
        let returning = restore::admit(&admission, left);
        let control = ControlApi::start(&nats, &status, &admission).await.map_err(NodeError::Nats)?;
        denials.settle(&nats).await;
        check_permissions(&denials)?;
        tell_what_nats_lacks(&nats, &denials).await;
        let Admission { identity, registry, drivers: services, .. } = &*admission;
        tracing::info!(public_xkey = %identity.xkey.public_key(), "Use this key as the recipient for encrypted run requests");
        tracing::info!(id = %identity.node, version = VERSION, "NATS execution engine awaiting commands");
        services.events.node_started(&status.tags());
        services.journal.damage().into_iter().for_each(|damage| services.events.journal_damaged(damage));
        let background = TaskScope::new("background");
        let beats = telling::heartbeat(services.events.clone(), Arc::clone(identity), Arc::clone(&status), registry.clone());
        background.spawn("heartbeat", beats);
        background.spawn("rotation", rotation::run(Arc::clone(&admission)));
        background.spawn("restore", restore::run(Arc::clone(&admission), returning));
        Ok(Self { nats, status, admission, control, http, bus, sandboxes, background, agents, telling, _state: state })
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

    /// Takes from a configuration what can be changed while the node runs, see [`crate::config::RELOADED`]. What runs already goes on.
    pub fn reload(&self, config: NodeConfig) {
        self.status.set_demands(config.demands);
        self.admission.config.reload(config);
    }

    /// Waits until the node drains and nothing is left to run, or until the end that was set to that.
    pub async fn drained(&self) {
        let mut drain = self.status.drains().await;
        loop {
            let at_the_end = async {
                match drain.until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.admission.registry.is_empty() => return,
                () = at_the_end => return,
                () = self.status.drains_otherwise(drain) => drain = self.next_drain(drain).await,
            }
        }
    }

    async fn next_drain(&self, last: Drain) -> Drain {
        let drain = self.status.drains().await;
        if drain == last { std::future::pending().await } else { drain }
    }

    /// Ends this process's work and leaves what runs to the next one: takes no more requests, ends the warm agents, tells the world. The
    /// caller has to exit then without dropping the node, which would end the rest.
    pub async fn leave(&self) {
        let Admission { registry, drivers, outbox, .. } = &*self.admission;
        self.control.stop(Duration::from_secs(2)).await;
        self.stop_http().await;
        self.background.shutdown(Duration::ZERO).await;
        drivers.launcher.compiler.stop().await;
        self.agents.shutdown(Duration::from_secs(5)).await;
        let left = registry.count();
        telling::stopped(drivers, outbox, &self.nats).await;
        tracing::info!(left, "node stopped; its workloads run on for the next process");
    }

    /// Requests under way are answered while what answers them is still there.
    async fn stop_http(&self) {
        if let Some(http) = &self.http {
            http.stop(self.admission.config.now().stop_grace).await;
        }
    }

    /// Stops everything, in order, and leaves nothing behind.
    pub async fn stop(self) {
        let Admission { config, registry, drivers, outbox, .. } = &*self.admission;
        self.control.stop(Duration::from_secs(2)).await;
        self.stop_http().await;
        // Nothing is restored from here on: what was not started yet stays in the journal.
        self.background.shutdown(Duration::ZERO).await;
        let workloads = registry.all();
        futures::future::join_all(workloads.iter().map(|workload| workload.shut_down("node shutdown"))).await;
        drivers.scope.shutdown(config.now().stop_grace).await;
        drivers.launcher.shared.stop().await;
        drivers.launcher.compiler.stop().await;
        drivers.launcher.images.stop().await;
        // The warm agents go with the pool's driver.
        self.agents.shutdown(Duration::from_secs(5)).await;
        self.sandboxes.close().await;
        self.bus.stop().await;
        telling::stopped(drivers, outbox, &self.nats).await;
        self.telling.shutdown(Duration::ZERO).await;
        tracing::info!("node stopped");
    }
}

/// Whether the node may subscribe what it has to.
fn check_permissions(denials: &Denials) -> Result<(), Denial> {
    let denied = |begins: &str| denials.take(|denial| denial.action == Action::Subscribe && denial.subject.starts_with(begins));
    // They came later than the others: who permits those only has a node that cannot be asked these.
    for (begins, what) in [
        (subject::HISTORY, "nobody can ask what this node has kept of logs and events"),
        (subject::REPLAY, "no message can be replayed on this node"),
    ] {
        if let Some(denial) = denied(begins) {
            tracing::warn!("{what}: {denial}");
        }
    }
    denied("$NEX.").map_or(Ok(()), Err)
}

/// Says what will not work on the user's NATS.
async fn tell_what_nats_lacks(nats: &Client, denials: &Denials) {
    if let Some(lacks) = server_lacks(&nats.server_info().version) {
        tracing::warn!("{lacks}");
    }
    if let Err(lacking) = rehearsal::jetstream(nats, denials).await {
        tracing::warn!("{lacking}");
    }
}

/// Listens for HTTP, if the node is to.
async fn serve_http(nats: &Client, config: Option<HttpConfig>) -> Result<Option<Gateway>, GatewayError> {
    let Some(config) = config else { return Ok(None) };
    let gateway = Gateway::start(nats.clone(), config).await?;
    tracing::info!(address = %gateway.address(), "HTTP requests to functions are served");
    Ok(Some(gateway))
}

/// Connects to the user's NATS, and sees whether the users that are made there for services are good.
async fn connect(options: &NodeOptions, denials: &Denials, waits: bool) -> Result<(Client, Option<ServiceUsers>), NodeError> {
    let service_users = options.config.service_credentials.as_ref().map(ServiceUsers::load).transpose()?;
    let nats = reach(&options.connection, denials, waits).await?;
    service_users::try_at_start(service_users.as_ref(), &options.connection).await?;
    Ok((nats, service_users))
}

/// Takes no images where the sandboxes cannot run them.
fn leave_out_images(config: &mut NodeConfig, sandboxes: &Sandboxes) {
    if let Err(why) = sandboxes.images()
        && config.workload_types.contains(&WorkloadType::Oci)
    {
        tracing::info!("no workloads of type oci are taken: {why}");
        config.workload_types.retain(|kind| *kind != WorkloadType::Oci);
    }
}

//! What a node's drivers need, put together from its parts.

use std::sync::Arc;

use async_nats::Client;
use nex_bus::denials::Denials;
use nex_bus::settings::ConnectionSettings;
use nex_host::HostServices;
use nex_process::TaskScope;

use super::error::NodeError;
use crate::agents::{AgentFactory, AgentRouter, SharedAgents};
use crate::artifacts::Artifacts;
use crate::bus::{BusKeys, InternalBus};
use crate::callees::Callees;
use crate::clock;
use crate::compiler::Compiler;
use crate::config::NodeConfig;
use crate::connections::Connections;
use crate::direct::Direct;
use crate::durable::DurableTriggers;
use crate::ended::EndedWorkloads;
use crate::events::Events;
use crate::history::History;
use crate::host_calls::HostCallServer;
use crate::identity::Identity;
use crate::images::Images;
use crate::journal::Journal;
use crate::namespace_connections::NamespaceConnections;
use crate::offered_nats;
use crate::outbox::Outbox;
use crate::pool::Pools;
use crate::quota::LogRates;
use crate::sandbox::Sandboxes;
use crate::secrets::Secrets;
use crate::service_users::ServiceUsers;
use crate::status::VERSION;
use crate::tail::Tails;

use crate::workload::launch::Launcher;
use crate::workload::runtime::{DriverServices, NodeTimeouts};

/// What the drivers' services are made of.
pub(super) struct DriverParts<'a> {
    pub(super) nats: &'a Client,
    pub(super) denials: Denials,
    pub(super) outbox: &'a Outbox,
    pub(super) history: History,
    pub(super) bus: &'a InternalBus,
    pub(super) keys: Arc<BusKeys>,
    pub(super) journal: Journal,
    pub(super) artifacts: Artifacts,
    pub(super) sandboxes: &'a Sandboxes,
    pub(super) agents: &'a TaskScope,
    pub(super) service_users: Option<ServiceUsers>,
}

impl DriverParts<'_> {
    /// Listens to agents, begins to warm some, and gives what drivers need to start workloads on them.
    pub(super) async fn services(
        self,
        config: &NodeConfig,
        identity: &Arc<Identity>,
        connection: ConnectionSettings,
        host: nex_host::Config,
    ) -> Result<Arc<DriverServices>, NodeError> {
        let DriverParts { nats, denials, outbox, history, bus, keys, journal, artifacts, sandboxes, agents, service_users } =
            self;
        let timeouts = sandboxes.timeouts();
        let events = Events::new(outbox.clone(), history.clone(), &identity.node, VERSION);
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
            memory_mib: None,
            handshake_timeout: config.handshake_timeout.unwrap_or(timeouts.handshake),
            ping_timeout: config.ping_timeout,
        };
        let mut pools = Pools::start(agents, factory.clone(), config.pool_size);
        for (name, class) in &config.microvm.classes {
            pools.add(name.clone(), agents, AgentFactory { size: Some(class.size), ..factory.clone() }, class.pool_size);
        }
        let namespaces = NamespaceConnections::load(&config.host_services)?;
        let connections = Connections::new((nats.clone(), denials), connection, config, namespaces);
        let host_calls = HostCallServer {
            host: Arc::new(HostServices::new(host)),
            connections: connections.clone(),
            bus: bus.client().clone(),
        };
        Ok(Arc::new(DriverServices {
            identity: Arc::clone(identity),
            log_rates: LogRates::default(),
            tails: Tails::default(),
            ended: EndedWorkloads::new(journal.ended(clock::unix_seconds())?),
            launcher: Launcher {
                pools,
                shared: SharedAgents::new(factory.clone(), config.isolation.memory_mib, config.isolation.max_instances),
                factory,
                compiler: Compiler::new(sandboxes.compiler(), artifacts.clone()),
                images: Images::new(sandboxes.images(), artifacts.clone(), config.artifact_cache_bytes),
                sizes: config.microvm.classes.iter().map(|(name, class)| (name.clone(), class.size)).collect(),
                artifacts,
                nats: nats.clone(),
                durable: DurableTriggers::new(connections.clone(), &config.deny_triggers, Arc::clone(identity)),
                callees: Callees::default(),
                secrets: Secrets { nats: nats.clone(), identity: Arc::clone(identity), connections: connections.clone() },
                direct: Direct::new(connections.clone(), sandboxes.reach(), config.anonymous_functions),
                offered_nats: offered_nats::offer(&connections, &sandboxes.reach(), service_users.is_some()),
                connections,
                service_users,
            },
            host_calls,
            journal,
            events,
            history,
            timeouts: NodeTimeouts { deploy: config.deploy_timeout.unwrap_or(timeouts.deploy), stop_grace: config.stop_grace },
            scope: TaskScope::new("workloads"),
        }))
    }
}

//! The connections workloads use, apart from the node's own control connection wherever somebody said so.
//!
//! A node never dials what a deployer names, unless the operator lists it (`allow_nats_urls`): whoever answers there could fill the
//! node's memory, and the attempt alone tells what listens where. The node's own servers are listed.
//!
//! In order: what the deployer brought (`trigger_connection`, `host_services`), for host services what the node's configuration names for
//! the namespace (`host_services.namespaces`), what it names for all (`host_services.nats_url`), the node's own connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::Client;
use nex_bus::connect::connect_with;
use nex_bus::denials::{Action, Denial, Denials};
use nex_bus::settings::ConnectionSettings;
use nex_process::{Deadline, Elapsed};
use nex_protocol::deploy::ConnectionDetails;
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;

use crate::artifacts::FetchError;
use crate::config::{NodeConfig, ServerList};
use crate::namespace_connections::{NamespaceConnectionError, NamespaceConnections};
use crate::workload::spec::WorkloadSpec;

/// Longest wait for a workload's host-service connection.
const HOST_CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a workload has no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Its deployer names servers that the operator does not.
    #[error(
        "Invalid deploy request: its NATS servers are not among those that this node connects workloads to; next: have its operator \
         list them in allow_nats_urls"
    )]
    NotListed,
    /// It cannot be made; why stands in the log only, for it would tell what listens where.
    #[error("Failed to deploy workload: its own NATS connection cannot be made; next: check its servers and credentials")]
    Unreachable,
    /// A trigger may not be subscribed on it.
    #[error("Failed to deploy workload: on the node's NATS: {0}")]
    TriggerDenied(Denial),
    /// That of its namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceConnectionError),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Triggers,
    Host,
}

/// A connection, and what its server does not permit on it.
type Watched = (Client, Denials);

/// The connections of all workloads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    node: Watched,
    node_settings: Arc<ConnectionSettings>,
    configured: Option<ConnectionDetails>,
    /// Servers that a deployer may name.
    servers: Arc<ServerList>,
    shared: Arc<tokio::sync::OnceCell<Watched>>,
    own: Arc<Mutex<HashMap<(WorkloadId, Purpose), Watched>>>,
    namespaces: Arc<NamespaceConnections>,
}

/// Where a workload's host services act.
#[derive(Debug)]
pub struct HostConnection {
    /// The connection.
    pub nats: Client,
    /// What its server does not permit there.
    pub denials: Denials,
    /// Whether it is not the node's own.
    pub is_narrow: bool,
}

impl Connections {
    /// Connections of a node that is itself connected by `node_settings`.
    #[must_use]
    pub fn new(node: Watched, node_settings: ConnectionSettings, config: &NodeConfig, namespaces: NamespaceConnections) -> Self {
        let configured = &config.host_services;
        let servers = Arc::new(config.workload_servers.clone().with(&node_settings.servers));
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let details = ConnectionDetails {
            nats_url: text(&configured.nats_url),
            nats_user_jwt: text(&configured.nats_user_jwt),
            nats_user_seed: text(&configured.nats_user_seed),
        };
        let configured = Some(details).filter(|details| !details.nats_url.is_empty() || !details.nats_user_jwt.is_empty());
        Self {
            node,
            node_settings: Arc::new(node_settings),
            configured,
            servers,
            shared: Arc::default(),
            own: Arc::default(),
            namespaces: Arc::new(namespaces),
        }
    }

    /// Whether workloads may be connected to the servers that a deployer names.
    ///
    /// # Errors
    /// [`ConnectionError::NotListed`], the same whatever is or is not at the other end.
    pub fn permit(&self, details: Option<&ConnectionDetails>) -> Result<(), ConnectionError> {
        let named = details.map_or("", |details| details.nats_url.as_str());
        if named.is_empty() || self.servers.has_all(&nex_bus::settings::split_servers(named)) {
            return Ok(());
        }
        Err(ConnectionError::NotListed)
    }

    /// Where a function's triggers are subscribed by the relay.
    ///
    /// # Errors
    /// [`ConnectionError`] when that connection cannot be made in time.
    pub async fn triggers(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Client, ConnectionError> {
        let details = spec.trigger_connection.as_ref().or(spec.host_services.as_ref());
        Ok(self.client(spec, Purpose::Triggers, details, by).await?.0)
    }

    /// Whether the server let the triggers of a workload be subscribed on [`Self::triggers`].
    ///
    /// # Errors
    /// [`ConnectionError::TriggerDenied`], with the one it did not.
    pub async fn check_triggers(&self, spec: &WorkloadSpec, by: Deadline) -> Result<(), ConnectionError> {
        let details = spec.trigger_connection.as_ref().or(spec.host_services.as_ref());
        let (client, denials) = self.client(spec, Purpose::Triggers, details, by).await?;
        denials.settle(&client).await;
        match denials.take(|denial| denial.action == Action::Subscribe && spec.triggers.contains(&denial.subject)) {
            None => Ok(()),
            Some(denial) => Err(ConnectionError::TriggerDenied(denial)),
        }
    }

    /// Where the messages of a workload's durable triggers are, and what its server does not permit there.
    ///
    /// # Errors
    /// [`ConnectionError`] when that connection cannot be made in time.
    pub async fn durable(&self, spec: &WorkloadSpec, by: Deadline) -> Result<(Client, Denials), ConnectionError> {
        let details = spec.trigger_connection.as_ref().or(spec.host_services.as_ref());
        self.client(spec, Purpose::Triggers, details, by).await
    }

    /// Where a workload's host services act.
    ///
    /// # Errors
    /// [`ConnectionError`] when that connection cannot be made.
    pub async fn host(&self, spec: &WorkloadSpec) -> Result<HostConnection, ConnectionError> {
        let (details, by) = (spec.host_services.as_ref(), Deadline::after(HOST_CONNECT));
        if details.is_none()
            && let Some(connection) = self.namespaces.get(&spec.namespace, &spec.id, by).await
        {
            let (nats, denials) = connection?;
            return Ok(HostConnection { nats, denials, is_narrow: true });
        }
        let (nats, denials) = self.client(spec, Purpose::Host, details, by).await?;
        Ok(HostConnection { nats, denials, is_narrow: details.is_some() || self.configured.is_some() })
    }

    /// Begins to connect a workload's host services.
    pub fn attach(&self, spec: &WorkloadSpec) {
        self.namespaces.attach(&spec.namespace, &spec.id);
    }

    /// Lets go of a workload's own connections, and of its namespace's with the last workload of it; gives them back.
    #[must_use]
    pub fn forget(&self, workload: &WorkloadId) -> Vec<Client> {
        let own: Vec<_> = self.lock().extract_if(|(id, _), _| id == workload).map(|(_, (client, _))| client).collect();
        own.into_iter().chain(self.namespaces.detach(workload)).collect()
    }

    async fn client(
        &self,
        spec: &WorkloadSpec,
        purpose: Purpose,
        details: Option<&ConnectionDetails>,
        by: Deadline,
    ) -> Result<Watched, ConnectionError> {
        let key = (spec.id.clone(), purpose);
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        if let Some(details) = details {
            self.permit(Some(details))?;
            let client = self.dial(details, by).await?;
            self.lock().insert(key, client.clone());
            return Ok(client);
        }
        match &self.configured {
            Some(details) => self.shared.get_or_try_init(|| self.dial(details, by)).await.cloned(),
            None => Ok(self.node.clone()),
        }
    }

    async fn dial(&self, details: &ConnectionDetails, by: Deadline) -> Result<Watched, ConnectionError> {
        let (settings, denials) = (self.settings(details), Denials::default());
        // What the other end said stands in the log only.
        let why = match by.bound(connect_with(&settings, &denials)).await {
            Ok(Ok(client)) => return Ok((client, denials)),
            Ok(Err(error)) => chain(&error),
            Err(Elapsed) => "no connection in time".to_owned(),
        };
        tracing::warn!(servers = settings.shown_servers(), why, "a workload's own NATS connection cannot be made");
        Err(ConnectionError::Unreachable)
    }

    fn settings(&self, details: &ConnectionDetails) -> ConnectionSettings {
        let mut settings = ConnectionSettings { name: Some("nex-workload".into()), ..ConnectionSettings::default() };
        settings.servers = match details.nats_url.as_str() {
            "" => self.node_settings.servers.clone(),
            urls => nex_bus::settings::split_servers(urls),
        };
        if !details.nats_user_jwt.is_empty() {
            settings.user_jwt = Some(details.nats_user_jwt.clone().into());
            settings.user_seed = Some(details.nats_user_seed.clone().into());
        }
        settings.tls_ca.clone_from(&self.node_settings.tls_ca);
        settings
    }

    /// Does something with a bucket on the node's connection; ends as soon as the server says that this is not permitted.
    ///
    /// # Errors
    /// That of the work, or [`FetchError::Denied`].
    pub async fn permitted<T, E: From<FetchError>>(
        &self,
        bucket: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.permitted_on(&format!("OBJ_{bucket}"), work, |denial| FetchError::Denied(denial).into()).await
    }

    /// Does something with a stream on the node's connection; ends as soon as the server says that this is not permitted.
    ///
    /// # Errors
    /// That of the work, or what is made of the denial.
    pub async fn permitted_on<T, E>(
        &self,
        stream: &str,
        work: impl Future<Output = Result<T, E>>,
        denied: impl FnOnce(Denial) -> E,
    ) -> Result<T, E> {
        let is_of_stream = |denial: &Denial| denial.subject.split('.').any(|token| token == stream);
        tokio::select! {
            // Listened for before anything is asked: a denial that is there by then is none of this.
            biased;
            denial = self.node.1.next(is_of_stream) => Err(denied(denial)),
            done = work => done,
        }
    }

    /// What the configuration says workloads connect with.
    #[must_use]
    pub fn configured(&self) -> Option<&ConnectionDetails> {
        self.configured.as_ref()
    }

    /// Whether the server that the node is connected to takes nothing but TLS.
    #[must_use]
    pub fn node_demands_tls(&self) -> bool {
        self.node.0.server_info().tls_required
    }

    /// How the node itself is connected.
    #[must_use]
    pub fn node_settings(&self) -> &ConnectionSettings {
        &self.node_settings
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(WorkloadId, Purpose), Watched>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

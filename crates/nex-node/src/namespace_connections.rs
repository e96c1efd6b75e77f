//! Connections for host services whose rights the operator narrows: one for each namespace that the configuration names, opened by the
//! first call and closed with the namespace's last workload here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Client;
use nex_bus::connect::connect_with;
use nex_bus::context::{ContextError, Directories, load};
use nex_bus::denials::Denials;
use nex_bus::settings::ConnectionSettings;
use nex_process::Deadline;
use nex_protocol::envelope::chain;
use nex_protocol::id::{Namespace, WorkloadId};
use tokio::sync::OnceCell;

use crate::config::RawHostServices;

/// Why a namespace's host services have no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceConnectionError {
    /// It cannot be made; why stands in the log.
    #[error("the NATS connection of this namespace's host services cannot be made; next: have the node's operator read its log")]
    Unreachable,
    /// The workload is over, and what it still asks for goes nowhere.
    #[error("this workload has ended")]
    Ended,
}

/// A connection, and what its server does not permit on it.
type Watched = (Client, Denials);

/// The connections of all namespaces that have one of their own.
#[derive(Debug, Default)]
pub struct NamespaceConnections {
    settings: BTreeMap<Namespace, ConnectionSettings>,
    open: Mutex<HashMap<Namespace, Open>>,
}

#[derive(Debug, Default)]
struct Open {
    workloads: HashSet<WorkloadId>,
    connection: Arc<OnceCell<Watched>>,
}

impl NamespaceConnections {
    /// Reads the contexts that the configuration names.
    ///
    /// # Errors
    /// [`ContextError`], for the first that cannot be used.
    pub fn load(config: &RawHostServices) -> Result<Self, ContextError> {
        let mut settings = BTreeMap::new();
        for (namespace, path) in &config.namespaces {
            // The configuration is checked; what is no namespace has no workloads.
            let Ok(namespace) = namespace.parse::<Namespace>() else { continue };
            let mut context = load(path, &Directories::default())?;
            context.name = Some(format!("nex-host-services-{namespace}"));
            settings.insert(namespace, context);
        }
        Ok(Self { settings, open: Mutex::default() })
    }

    /// Begins to serve a workload, if its namespace has a connection of its own.
    pub fn attach(&self, namespace: &Namespace, workload: &WorkloadId) {
        if self.settings.contains_key(namespace) {
            self.lock().entry(namespace.clone()).or_default().workloads.insert(workload.clone());
        }
    }

    /// The connection of a workload's namespace; nothing where it has none of its own.
    ///
    /// # Errors
    /// [`NamespaceConnectionError`].
    pub async fn get(
        &self,
        namespace: &Namespace,
        workload: &WorkloadId,
        by: Deadline,
    ) -> Option<Result<Watched, NamespaceConnectionError>> {
        let settings = self.settings.get(namespace)?;
        let connection = {
            let open = self.lock();
            let attached = open.get(namespace).filter(|open| open.workloads.contains(workload));
            attached.map(|open| Arc::clone(&open.connection))
        };
        let Some(connection) = connection else { return Some(Err(NamespaceConnectionError::Ended)) };
        Some(connection.get_or_try_init(|| dial(namespace, settings, by)).await.cloned())
    }

    /// Ends to serve a workload; gives back the connection that nobody uses any more.
    #[must_use]
    pub fn detach(&self, workload: &WorkloadId) -> Option<Client> {
        let mut all = self.lock();
        let namespace = all.iter().find(|(_, open)| open.workloads.contains(workload)).map(|(namespace, _)| namespace.clone())?;
        let open = all.get_mut(&namespace)?;
        open.workloads.remove(workload);
        if !open.workloads.is_empty() {
            return None;
        }
        all.remove(&namespace)?.connection.get().map(|(client, _)| client.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn dial(namespace: &Namespace, settings: &ConnectionSettings, by: Deadline) -> Result<Watched, NamespaceConnectionError> {
    let denials = Denials::default();
    let why = match by.bound(connect_with(settings, &denials)).await {
        Ok(Ok(client)) => return Ok((client, denials)),
        Ok(Err(error)) => chain(&error),
        Err(_elapsed) => "no connection in time".to_owned(),
    };
    tracing::warn!(%namespace, servers = settings.shown_servers(), why, "no NATS connection for the host services of a namespace");
    Err(NamespaceConnectionError::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nex_testkit::NatsServer;
    use std::time::Duration;

    fn of(server: &NatsServer, dir: &tempfile::TempDir) -> NamespaceConnections {
        let path = dir.path().join("a.json");
        std::fs::write(&path, format!(r#"{{"url":"{}"}}"#, server.url())).unwrap();
        let namespaces = [("a".to_owned(), path.to_str().unwrap().to_owned())].into();
        NamespaceConnections::load(&RawHostServices { namespaces, ..RawHostServices::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_shared_by_its_namespace_and_ends_with_the_last_workload() {
        let (server, dir) = (NatsServer::start().await, tempfile::tempdir().unwrap());
        let connections = of(&server, &dir);
        let (a, b): (Namespace, Namespace) = ("a".parse().unwrap(), "b".parse().unwrap());
        let [first, second, other] = [1, 2, 3].map(WorkloadId::new);
        let by = || Deadline::after(Duration::from_secs(20));
        assert!(connections.get(&b, &other, by()).await.is_none(), "not named");
        assert!(matches!(connections.get(&a, &first, by()).await, Some(Err(NamespaceConnectionError::Ended))));
        connections.attach(&a, &first);
        connections.attach(&a, &second);
        assert!(connections.lock().values().all(|open| !open.connection.initialized()), "nothing is dialled before a call");
        let (one, _) = connections.get(&a, &first, by()).await.unwrap().unwrap();
        let (same, _) = connections.get(&a, &second, by()).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&one.statistics(), &same.statistics()));
        assert!(connections.detach(&first).is_none());
        assert!(connections.get(&a, &first, by()).await.unwrap().is_err(), "it has ended");
        let last = connections.detach(&second).unwrap();
        assert!(Arc::ptr_eq(&last.statistics(), &one.statistics()));
        assert!(connections.lock().is_empty());
        connections.attach(&a, &first);
        let (anew, _) = connections.get(&a, &first, by()).await.unwrap().unwrap();
        assert!(!Arc::ptr_eq(&anew.statistics(), &one.statistics()));
    }
}

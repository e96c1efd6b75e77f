//! Workload connections: instances with the same servers and credentials share one, and it is closed with the last of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_nats::Client;
use nex_bus::connect::{ConnectError, connect_with};
use nex_bus::denials::Denials;
use nex_bus::settings::{ConnectionSettings, split_servers};
use nex_protocol::deploy::ConnectionDetails;
use tokio::sync::OnceCell;

/// A connection that stands.
pub(crate) struct Connected {
    pub(crate) client: Client,
    /// What its server denies.
    pub(crate) denials: Denials,
}

/// A connection, or the attempt at one.
type Shared = OnceCell<Connected>;

/// Servers, JWT, seed.
type Key = (String, String, String);

/// The workload connections of an agent.
#[derive(Default)]
pub(crate) struct WorkloadConnections(Mutex<HashMap<Key, Weak<Shared>>>);

/// An instance's part in a connection.
#[derive(Clone)]
pub(crate) struct WorkloadConnection(Arc<Shared>);

impl WorkloadConnection {
    /// The connection.
    pub(crate) fn get(&self) -> Option<&Connected> {
        self.0.get()
    }
}

impl WorkloadConnections {
    /// The connection that these details mean; made if there is none.
    pub(crate) async fn of(&self, details: &ConnectionDetails) -> Result<WorkloadConnection, ConnectError> {
        let ConnectionDetails { nats_url, nats_user_jwt, nats_user_seed } = details;
        let key = (nats_url.clone(), nats_user_jwt.clone(), nats_user_seed.clone());
        let shared = {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|_, connection| connection.strong_count() > 0);
            let known = open.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let fresh = Arc::<Shared>::default();
                open.insert(key, Arc::downgrade(&fresh));
                fresh
            })
        };
        // Several that wait for the same one wait for the same attempt; each failed one is followed by the next one's own.
        shared.get_or_try_init(|| connect(details)).await?;
        Ok(WorkloadConnection(shared))
    }
}

async fn connect(details: &ConnectionDetails) -> Result<Connected, ConnectError> {
    let mut settings = ConnectionSettings {
        servers: split_servers(&details.nats_url),
        name: Some("nex-function".into()),
        ..ConnectionSettings::default()
    };
    if !details.nats_user_jwt.is_empty() {
        settings.user_jwt = Some(details.nats_user_jwt.clone().into());
        settings.user_seed = Some(details.nats_user_seed.clone().into());
    }
    let denials = Denials::default();
    let client = connect_with(&settings, &denials).await?;
    Ok(Connected { client, denials })
}

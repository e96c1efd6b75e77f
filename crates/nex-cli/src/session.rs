//! A connection to NATS with its client.

use std::time::Duration;

use nex_bus::connect::connect_with;
use nex_client::secret::SecretsError;
use nex_client::{Client, DEPLOY_TIMEOUT, REQUEST_TIMEOUT};
use nex_protocol::id::SecretName;
use nkeys::KeyPair;

use crate::args::ConnectionArgs;
use crate::env::Env;

/// State of a command that uses NATS.
#[derive(Debug)]
pub(crate) struct Session {
    /// The client of the namespace.
    pub(crate) client: Client,
    /// How long answers of nodes are collected.
    pub(crate) discovery_timeout: Duration,
    /// Timeout of a deploy, a stop or a call.
    pub(crate) work_timeout: Duration,
    /// JetStream domain of the artifacts.
    pub(crate) jetstream_domain: Option<String>,
    /// The flags that commands which are suggested have to repeat, each after a blank.
    pub(crate) repeated: String,
}

impl Session {
    /// The versions of an issuer's secrets: one that was set since makes another version of what uses it.
    pub(crate) async fn secret_versions(
        &self,
        names: impl Iterator<Item = &SecretName>,
        issuer: &KeyPair,
    ) -> Result<Vec<u64>, SecretsError> {
        let (issuer, domain) = (issuer.public_key(), self.jetstream_domain.as_deref());
        let mut versions = Vec::new();
        for name in names {
            versions.push(Box::pin(self.client.secret_version(name, &issuer, domain)).await?);
        }
        Ok(versions)
    }
}

/// Connects to NATS.
pub(crate) async fn open(connection: &ConnectionArgs, env: &Env) -> anyhow::Result<Session> {
    let settings = connection.settings(env)?;
    let nats = Box::pin(connect_with(&settings, &connection.denials)).await?;
    let discovery_timeout = connection.timeout.unwrap_or(REQUEST_TIMEOUT);
    let work_timeout = connection.timeout.unwrap_or(DEPLOY_TIMEOUT);
    let client =
        Client::new(nats, connection.namespace.clone()).with_timeout(discovery_timeout).with_deploy_timeout(work_timeout);
    Ok(Session {
        client,
        discovery_timeout,
        work_timeout,
        jetstream_domain: settings.jetstream_domain,
        repeated: connection.repeated(),
    })
}

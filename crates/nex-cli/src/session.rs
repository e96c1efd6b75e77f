//! A connection to NATS, and the client on it.

use std::time::Duration;

use nex_bus::connect::{Persistence, connect};
use nex_client::{Client, DEPLOY_TIMEOUT, REQUEST_TIMEOUT};

use crate::args::ConnectionArgs;
use crate::env::Env;

/// What every command that reaches NATS starts with.
#[derive(Debug)]
pub(crate) struct Session {
    /// The client of the namespace.
    pub(crate) client: Client,
    /// Longest wait for answers of many nodes.
    pub(crate) wait: Duration,
    /// Longest wait for work: a deploy, a stop, a call.
    pub(crate) patience: Duration,
    /// JetStream domain of the artifacts.
    pub(crate) jetstream_domain: Option<String>,
}

/// Connects as the command line says.
pub(crate) async fn open(connection: &ConnectionArgs, env: &Env) -> anyhow::Result<Session> {
    let settings = connection.settings(env)?;
    let nats = Box::pin(connect(&settings, Persistence::Once)).await?;
    let wait = connection.timeout.unwrap_or(REQUEST_TIMEOUT);
    let patience = connection.timeout.unwrap_or(DEPLOY_TIMEOUT);
    let client = Client::new(nats, connection.namespace.clone()).with_timeout(wait).with_deploy_timeout(patience);
    Ok(Session { client, wait, patience, jetstream_domain: settings.jetstream_domain })
}

//! A connection to NATS, and the client on it.

use std::time::Duration;

use nex_bus::connect::{Persistence, connect_with};
use nex_client::{Client, DEPLOY_TIMEOUT, REQUEST_TIMEOUT};

use crate::args::Cli;
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
pub(crate) async fn open(cli: &Cli, env: &Env) -> anyhow::Result<Session> {
    let settings = cli.connection.settings(env)?;
    let nats = Box::pin(connect_with(&settings, Persistence::Once, &cli.denials)).await?;
    let wait = cli.connection.timeout.unwrap_or(REQUEST_TIMEOUT);
    let patience = cli.connection.timeout.unwrap_or(DEPLOY_TIMEOUT);
    let client = Client::new(nats, cli.connection.namespace.clone()).with_timeout(wait).with_deploy_timeout(patience);
    Ok(Session { client, wait, patience, jetstream_domain: settings.jetstream_domain })
}

//! The bus as the node uses it: started, connected to, started again on the same port if it dies, stopped.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_bus::connect::{Persistence, connect};
use nex_bus::settings::ConnectionSettings;
use nex_process::TaskScope;
use tokio::sync::oneshot;

use super::auth::BusKeys;
use super::proof::BusProof;
use super::server::{BusError, BusServer};
use crate::clock;
use crate::journal::Journal;

/// The journal's name for the bus process.
const ROLE: &str = "bus";
/// Pause before a server that died is started again.
const RESTART: Duration = Duration::from_millis(200);

/// The internal bus and the node's connection to it.
pub struct InternalBus {
    url: String,
    certificate: String,
    client: Client,
    stop: oneshot::Sender<()>,
    scope: TaskScope,
}

impl fmt::Debug for InternalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalBus").field("url", &self.url).finish_non_exhaustive()
    }
}

struct Supervisor {
    program: PathBuf,
    dir: PathBuf,
    keys: Arc<BusKeys>,
    proof: BusProof,
    host: IpAddr,
    port: u16,
    journal: Journal,
}

impl InternalBus {
    /// Starts the server on a port of one of the host's own addresses (any free one if absent) and connects to it as the node.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn start(
        program: PathBuf,
        dir: PathBuf,
        keys: Arc<BusKeys>,
        (host, port): (IpAddr, Option<u16>),
        journal: Journal,
    ) -> Result<Self, BusError> {
        let proof = BusProof::make(&dir, host)?;
        let certificate = proof.certificate().to_owned();
        let server = launch(&program, &dir, (&keys, &proof), (host, port.map_or(-1, i32::from)), &journal).await?;
        let url = server.url().to_owned();
        let user = keys.node_user(clock::unix_seconds());
        let settings = ConnectionSettings {
            servers: vec![url.clone()],
            server_certificate: Some(certificate.clone()),
            user_jwt: Some(user.jwt.into()),
            user_seed: Some(user.seed.into()),
            name: Some("nex-node".into()),
            inbox_prefix: Some("_INBOX.node".into()),
            ..ConnectionSettings::default()
        };
        let client = connect(&settings, Persistence::Once).await.map_err(BusError::Connect)?;
        let port = port_of(&url);
        let scope = TaskScope::new("bus");
        let (stop, stopped) = oneshot::channel();
        let supervisor = Supervisor { program, dir, keys, proof, host, port, journal };
        scope.spawn("bus", supervisor.run(server, stopped));
        Ok(Self { url, certificate, client, stop, scope })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate it proves itself with, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        port_of(&self.url)
    }

    /// The node's connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Stops the server.
    pub async fn stop(self) {
        // Our connection ends before the server does, so nobody tries to get it back.
        self.client.drain().await.ok();
        self.stop.send(()).ok();
        self.scope.shutdown(Duration::from_secs(5)).await;
    }
}

impl Supervisor {
    /// Agents and node reconnect by themselves to the same port with the same keys; nobody notices but for a pause.
    async fn run(self, first: BusServer, mut stopped: oneshot::Receiver<()>) {
        let mut running = Some(first);
        loop {
            if let Some(server) = running.take() {
                tokio::select! {
                    () = server.exited() => tracing::error!("the internal NATS server died and is started again"),
                    _ = &mut stopped => {
                        server.stop().await;
                        if let Err(error) = self.journal.remove_child(ROLE) {
                            tracing::warn!(%error, "the record of the internal NATS server stays behind");
                        }
                        return;
                    }
                }
            }
            tokio::time::sleep(RESTART).await;
            let keys = (&*self.keys, &self.proof);
            match launch(&self.program, &self.dir, keys, (self.host, i32::from(self.port)), &self.journal).await {
                Ok(server) => running = Some(server),
                Err(error) => {
                    tracing::error!(error = %nex_protocol::envelope::chain(&error), "the internal NATS server does not come back");
                }
            }
            if stopped.try_recv().is_ok() {
                return;
            }
        }
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
}

async fn launch(
    program: &Path,
    dir: &Path,
    (keys, proof): (&BusKeys, &BusProof),
    listen: (IpAddr, i32),
    journal: &Journal,
) -> Result<BusServer, BusError> {
    let now = clock::unix_seconds();
    let server = BusServer::start(program, dir, |ports| keys.server_config(listen, ports, now) + &proof.server_config()).await?;
    journal.put_child(ROLE, server.process()).map_err(BusError::Journal)?;
    Ok(server)
}

//! The bus as the node uses it: started or taken over, connected to, started again on the same port if it dies, stopped.
//!
//! It outlives a node that is killed, so that agents of a killed node wait on it for the next one. If it died as well, it comes back where
//! it was, with the certificate that the agents believe.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nex_bus::connect::connect;
use nex_bus::settings::ConnectionSettings;
use nex_process::{Deadline, ProcessId, TaskScope, crash_point};
use tokio::sync::oneshot;

use super::auth::BusKeys;
use super::proof::BusProof;
use super::server::{BusError, BusServer};
use crate::clock;
use crate::journal::{BusRecord, Journal};

/// Time a server that cannot be taken over has to die after SIGKILL.
const KILL: Duration = Duration::from_secs(5);
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

/// Where the server listens.
#[derive(Debug, Clone)]
pub struct Listen {
    /// One of the host's own addresses.
    pub host: IpAddr,
    /// Any free one if absent.
    pub port: Option<u16>,
    /// Ports at which agents would reach something else.
    pub taken: BTreeSet<u16>,
}

/// How a server is started.
struct Starter {
    program: PathBuf,
    dir: PathBuf,
    keys: Arc<BusKeys>,
    proof: BusProof,
    host: IpAddr,
    /// Ports at which agents would reach something else.
    taken: BTreeSet<u16>,
    journal: Journal,
}

impl InternalBus {
    /// Connects as the node to the server that an earlier process left running, or starts one.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn start(
        program: PathBuf,
        dir: PathBuf,
        keys: Arc<BusKeys>,
        listen: Listen,
        journal: Journal,
    ) -> Result<Self, BusError> {
        let Listen { host, port, taken } = listen;
        let left = journal.bus().map_err(BusError::Journal)?;
        // Agents know it by its address and its certificate.
        let is_right = |last: u16| port.map_or_else(|| !taken.contains(&last), |port| port == last);
        let known = left.as_ref().filter(|left| host_of(&left.url) == Some(host) && is_right(port_of(&left.url)));
        let (proof, known) = match (known, BusProof::load(&dir)) {
            (Some(known), Ok(proof)) => (proof, Some(known.clone())),
            _ => (BusProof::make(&dir, host)?, None),
        };
        let starter = Starter { program, dir: dir.clone(), keys, proof, host, taken, journal };
        let adopted = match known.as_ref().filter(|known| known.process.is_alive()) {
            Some(known) => starter.adopt(known).await,
            None => None,
        };
        let (server, client) = match adopted {
            Some(adopted) => adopted,
            None => {
                // A process that is killed between a start and its record leaves a server that no journal names.
                for left in left.map(|left| left.process).into_iter().chain(ProcessId::all_inside(&dir)) {
                    end(left).await;
                }
                starter.start(known.map(|known| port_of(&known.url)), port).await?
            }
        };
        let (url, certificate) = (server.url().to_owned(), starter.proof.certificate().to_owned());
        let scope = TaskScope::new("bus");
        let (stop, stopped) = oneshot::channel();
        scope.spawn("bus", starter.supervise(server, stopped));
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

impl Starter {
    /// Goes on with a server that an earlier process left running, if it is ours and lets us in.
    async fn adopt(&self, left: &BusRecord) -> Option<(BusServer, Client)> {
        match self.connect(&left.url).await {
            Ok(client) => {
                tracing::info!(process = %left.process, "the internal NATS server of the last process of this node runs on");
                Some((BusServer::adopt(left.process, left.url.clone()), client))
            }
            Err(error) => {
                let error = nex_protocol::envelope::chain(&error);
                tracing::warn!(process = %left.process, error, "the internal NATS server of the last process does not let the node in");
                None
            }
        }
    }

    /// Starts one where the last one was, as its agents look for it there; elsewhere if somebody has that port by now.
    async fn start(&self, last: Option<u16>, port: Option<u16>) -> Result<(BusServer, Client), BusError> {
        let server = match last {
            Some(last) => match self.launch(last.into()).await {
                Ok(server) => server,
                Err(error) if port.is_none() => {
                    let error = nex_protocol::envelope::chain(&error);
                    tracing::warn!(port = last, error, "the internal NATS server cannot be where it was");
                    self.launch_anywhere().await?
                }
                Err(error) => return Err(error),
            },
            None => match port {
                Some(port) => self.launch(port.into()).await?,
                None => self.launch_anywhere().await?,
            },
        };
        let client = self.connect(server.url()).await?;
        Ok((server, client))
    }

    /// On a port that the system has free, unless agents would reach something else there.
    async fn launch_anywhere(&self) -> Result<BusServer, BusError> {
        loop {
            let server = self.launch(-1).await?;
            if !self.taken.contains(&port_of(server.url())) {
                return Ok(server);
            }
            server.stop().await;
        }
    }

    async fn launch(&self, port: i32) -> Result<BusServer, BusError> {
        let (listen, now) = ((self.host, port), clock::unix_seconds());
        let config = |ports: &str| self.keys.server_config(listen, ports, now) + &self.proof.server_config();
        let server = BusServer::start(&self.program, &self.dir, config).await?;
        crash_point("bus: it listens");
        let record = BusRecord { process: server.process(), url: server.url().to_owned() };
        self.journal.put_bus(&record).map_err(BusError::Journal)?;
        Ok(server)
    }

    async fn connect(&self, url: &str) -> Result<Client, BusError> {
        let user = self.keys.node_user(clock::unix_seconds());
        let settings = ConnectionSettings {
            servers: vec![url.to_owned()],
            server_certificate: Some(self.proof.certificate().to_owned()),
            user_jwt: Some(user.jwt.into()),
            user_seed: Some(user.seed.into()),
            name: Some("nex-node".into()),
            inbox_prefix: Some("_INBOX.node".into()),
            ..ConnectionSettings::default()
        };
        connect(&settings).await.map_err(BusError::Connect)
    }

    /// Agents and node reconnect by themselves to the same port with the same keys; nobody notices but for a pause.
    async fn supervise(self, first: BusServer, mut stopped: oneshot::Receiver<()>) {
        let port = port_of(first.url());
        let mut running = Some(first);
        loop {
            if let Some(server) = running.take() {
                tokio::select! {
                    () = server.exited() => tracing::error!("the internal NATS server died and is started again"),
                    _ = &mut stopped => {
                        server.stop().await;
                        if let Err(error) = self.journal.remove_bus() {
                            tracing::warn!(%error, "the record of the internal NATS server stays behind");
                        }
                        return;
                    }
                }
            }
            tokio::time::sleep(RESTART).await;
            match self.launch(port.into()).await {
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

async fn end(process: ProcessId) {
    if process.is_alive() && process.kill_and_wait(Deadline::after(KILL)).await.is_err() {
        tracing::error!(%process, "the internal NATS server of the last process does not die");
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
}

fn host_of(url: &str) -> Option<IpAddr> {
    let (_, rest) = url.split_once("://")?;
    rest.rsplit_once(':')?.0.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tempfile::TempDir;

    use super::*;
    use crate::state_dir::StateDir;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_where_it_was_unless_agents_would_reach_something_else_there() {
        let directory = TempDir::new().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let (keys, journal) = (Arc::new(BusKeys::load(&state).unwrap()), Journal::open(&state.path("journal.redb")).unwrap());
        let start = async |taken: BTreeSet<u16>| {
            let listen = Listen { host: Ipv4Addr::LOCALHOST.into(), port: None, taken };
            let program = nex_testkit::nats_server_binary();
            InternalBus::start(program, state.path("bus"), Arc::clone(&keys), listen, journal.clone()).await.unwrap()
        };
        let first = start(BTreeSet::new()).await;
        let (port, record) = (first.port(), journal.bus().unwrap().unwrap());
        first.stop().await;
        // As if it had ended with its node.
        journal.put_bus(&record).unwrap();
        let again = start(BTreeSet::new()).await;
        assert_eq!(again.port(), port);
        again.stop().await;
        journal.put_bus(&record).unwrap();
        let elsewhere = start(BTreeSet::from([port])).await;
        assert_ne!(elsewhere.port(), port);
        elsewhere.stop().await;
    }
}

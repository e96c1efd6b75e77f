//! Fixture of the measurements: a nats-server, a real node and a client.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nex_bus::connect::connect;
use nex_client::Client;
use nex_client::artifact::{DEFAULT_BUCKET, LocalFile, NewBucket, Upload};
use nex_client::deploy::{Deployment, Keys, Target};
use nex_protocol::control::{AuctionRequest, NodeSummary};
use nex_protocol::deploy::{DeployResponse, Isolation, Location, WorkloadType};
use nex_protocol::envelope::{self, kind};
use nex_protocol::id::NodeId;
use nex_protocol::subject;
use nex_testkit::{NatsOptions, NatsServer, eventually, guest};
use nkeys::{KeyPair, XKey};
use tokio::process::Child;

use crate::child::{self, NodeArgs};
use crate::monitor::Monitor;
use crate::plan::TIMEOUT;

/// How calls reach a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The agent subscribes itself, because the connection needs no credentials.
    Direct,
    /// The same, by an agent that functions share.
    Shared,
    /// The node relays, because the agent must not have its password.
    Relayed,
    /// The node relays to agents in microVMs.
    MicroVm(Monitor),
}

/// A nats-server, a node and a client.
pub(crate) struct Fixture {
    pub(crate) client: Client,
    pub(crate) args: NodeArgs,
    pub(crate) node: Child,
    pub(crate) nats: NatsServer,
    pub(crate) deployer: Arc<Deployer>,
    way: Way,
    dir: tempfile::TempDir,
}

/// Who deploys to a node.
pub(crate) struct Deployer {
    client: Client,
    keys: Keys,
    target: Target,
}

impl Deployer {
    /// The node.
    pub(crate) fn node(&self) -> &NodeId {
        &self.target.node
    }

    pub(crate) async fn deploy(&self, deployment: &Deployment) -> Result<DeployResponse> {
        Ok(self.client.deploy(deployment, &self.target, &self.keys).await?)
    }

    pub(crate) async fn stop(&self, id: &str, name: &str) -> Result<()> {
        self.client.stop(&self.target.node, &id.parse()?, &name.parse()?, &self.keys.issuer).await?;
        Ok(())
    }
}

impl Fixture {
    pub(crate) async fn start(way: Way, pool_size: usize) -> Result<Self> {
        Self::start_with(way, pool_size, |args| args).await
    }

    /// The same with a node that listens for HTTP.
    pub(crate) async fn start_listening(way: Way, pool_size: usize, http: Option<SocketAddr>) -> Result<Self> {
        Self::start_with(way, pool_size, |args| NodeArgs { http, ..args }).await
    }

    /// The same with a network of this size for its workloads, rather than one that has room for about 250.
    pub(crate) async fn start_in(way: Way, pool_size: usize, subnet: Option<&str>) -> Result<Self> {
        Self::start_with(way, pool_size, |args| NodeArgs { subnet: subnet.map(Into::into), ..args }).await
    }

    async fn start_with(way: Way, pool_size: usize, more: impl FnOnce(NodeArgs) -> NodeArgs) -> Result<Self> {
        let (user, config) = match way {
            Way::Direct | Way::Shared | Way::MicroVm(_) => (None, String::new()),
            Way::Relayed => (Some("bench".to_owned()), "authorization { user: bench, password: bench }".to_owned()),
        };
        let nats = NatsServer::start_with(NatsOptions { config, ..NatsOptions::default() }).await;
        let dir = tempfile::tempdir()?;
        // Monitors run as other users and must be able to traverse the directory.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        let monitor = if let Way::MicroVm(monitor) = way { Some(monitor) } else { None };
        let (url, state_dir) = (nats.url(), dir.path().join("state"));
        let args = more(NodeArgs { password: user.clone(), user, state_dir, pool_size, monitor, ..NodeArgs::to(&url) });
        let node = child::node(&args)?;
        let nats_client = connect(&args.connection()).await?;
        let client = Client::new(nats_client, "default".parse()?);
        let first = first_bid(&client).await?;
        let target = Target::new(first.node_id.parse()?, first.target_xkey, &first.xkey_signature)?;
        let keys = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
        let deployer = Arc::new(Deployer { client: client.clone(), keys, target });
        let fixture = Self { client, args, node, nats, deployer, way, dir };
        fixture.warm(pool_size).await?;
        Ok(fixture)
    }

    /// Uploads an artifact if needed and returns its deployment.
    pub(crate) async fn deployment(&self, name: &str, kind: WorkloadType, bytes: &[u8]) -> Result<Deployment> {
        let file: PathBuf = self.dir.path().join(name);
        std::fs::write(&file, bytes)?;
        let location = Location::new(DEFAULT_BUCKET, name).context("a name that is no key")?;
        let file = LocalFile::read(file).await?;
        let upload = Upload { location, jetstream_domain: None, new_bucket: NewBucket::default(), file };
        let artifact = self.client.upload(&upload, |_, _| ()).await?.artifact;
        let isolation = (self.way == Way::Shared).then_some(Isolation::Isolate);
        Ok(Deployment { isolation, ..Deployment::new(name.parse()?, kind, artifact) })
    }

    pub(crate) async fn deploy(&self, deployment: &Deployment) -> Result<DeployResponse> {
        self.deployer.deploy(deployment).await
    }

    pub(crate) async fn stop(&self, started: &DeployResponse) -> Result<()> {
        self.deployer.stop(&started.id, &started.name).await
    }

    /// Kills the node as it stands.
    pub(crate) async fn kill_node(&mut self) -> Result<()> {
        self.node.kill().await.context("cannot kill the node")
    }

    /// Starts the next process of the node.
    pub(crate) fn start_node(&mut self) -> Result<()> {
        self.node = child::node(&self.args)?;
        Ok(())
    }

    /// Waits until this many agents are warm.
    pub(crate) async fn warm(&self, agents: usize) -> Result<()> {
        let ready = || async { ping(&self.client).await.is_some_and(|node| node.warm_agents.unwrap_or(0) >= agents) };
        if eventually(TIMEOUT, ready).await { Ok(()) } else { bail!("no {agents} agents were ready within {TIMEOUT:?}") }
    }

    /// URL of the server for native services.
    pub(crate) fn url(&self) -> String {
        self.nats.url()
    }

    /// Stops the node and waits for it.
    pub(crate) async fn end(self) -> Result<()> {
        child::end(self.node).await
    }
}

/// The functions to measure.
pub(crate) fn functions() -> [(&'static str, WorkloadType, Vec<u8>); 2] {
    [
        ("wasm-echo", WorkloadType::Wasm, guest::assemble(guest::ECHO_WAT)),
        ("js-echo", WorkloadType::V8, guest::ECHO_JS.as_bytes().to_vec()),
    ]
}

/// Sends a PING.
pub(crate) async fn ping(client: &Client) -> Option<NodeSummary> {
    let answer = client.nats().request(subject::PING, "".into()).await.ok()?;
    envelope::open(kind::PING, &answer.payload).ok()
}

/// Sends AUCTION requests until a node bids.
pub(crate) async fn first_bid(client: &Client) -> Result<NodeSummary> {
    let wanted = AuctionRequest { explain: true, ..AuctionRequest::default() };
    let body = serde_json::to_vec(&wanted)?;
    let end = tokio::time::Instant::now() + TIMEOUT;
    while tokio::time::Instant::now() < end {
        let answer = client.nats().request(subject::AUCTION, body.clone().into()).await;
        let bid = answer.ok().and_then(|answer| envelope::open::<NodeSummary>(kind::AUCTION, &answer.payload).ok());
        match bid.filter(|node| node.declined.is_empty()) {
            Some(bid) => return Ok(bid),
            None => tokio::time::sleep(Duration::from_micros(500)).await,
        }
    }
    bail!("no node made a bid within {TIMEOUT:?}")
}

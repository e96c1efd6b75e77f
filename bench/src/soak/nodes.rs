//! Several nodes that are killed and started again, and what is deployed to each of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nex_bus::connect::connect;
use nex_bus::settings::ConnectionSettings;
use nex_client::Client;
use nex_client::artifact::{DEFAULT_BUCKET, LocalFile, NewBucket, Upload};
use nex_client::deploy::{Deployment, Keys, Target};
use nex_process::{ProcessId, Signal};
use nex_protocol::control::{AuctionRequest, NodeSummary};
use nex_protocol::deploy::{Location, WorkloadType};
use nex_protocol::trigger::{DurableTrigger, Trigger};
use nkeys::{KeyPair, XKey};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use tokio::process::Child;

use super::host::processes_of;
use crate::child::{self, NodeArgs};
use crate::plan::TIMEOUT;

/// Longest time without a node or a server, ms.
pub(super) const AWAY_MS: u64 = 3_000;

/// Nodes of one NATS.
pub(super) struct Nodes {
    pub(super) client: Client,
    args: Vec<NodeArgs>,
    running: Vec<Option<Child>>,
    targets: Vec<Target>,
    keys: Keys,
    dir: tempfile::TempDir,
}

impl Nodes {
    /// Starts so many and waits until each has bid.
    pub(super) async fn start(urls: &str, count: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let args: Vec<NodeArgs> = (0..count)
            .map(|number| NodeArgs { state_dir: dir.path().join(format!("node-{number}")), pool_size: 2, ..NodeArgs::to(urls) })
            .collect();
        let running = args.iter().map(|args| child::node(args).map(Some)).collect::<Result<_>>()?;
        let nats = connect(&ConnectionSettings::to_servers(urls)).await?;
        let client = Client::new(nats, "default".parse()?);
        let of = |bid: &NodeSummary| Target::new(bid.node_id.parse().ok()?, bid.target_xkey.clone(), &bid.xkey_signature).ok();
        let (end, mut targets) = (Instant::now() + TIMEOUT, Vec::new());
        while targets.len() < count {
            anyhow::ensure!(Instant::now() < end, "not all of {count} nodes have bid within {TIMEOUT:?}");
            let auction = client.auction(&AuctionRequest::default(), Duration::from_millis(500)).await;
            targets = auction.map(|auction| auction.bids.iter().filter_map(of).collect()).unwrap_or_default();
        }
        let keys = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
        Ok(Self { client, args, running, targets, keys, dir })
    }

    /// Deploys a copy of a function to each node.
    pub(super) async fn deploy(&self, name: &str, source: &str, triggers: &[String]) -> Result<()> {
        let file: PathBuf = self.dir.path().join(name);
        std::fs::write(&file, source)?;
        let location = Location::new(DEFAULT_BUCKET, name).context("a name that is no key")?;
        let file = LocalFile::read(file).await?;
        let upload = Upload { location, jetstream_domain: None, new_bucket: NewBucket::default(), file };
        let artifact = self.client.upload(&upload, |_, _| ()).await?.artifact;
        let durable = triggers.iter().map(|text| match text.parse() {
            Ok(Trigger::Durable(trigger)) => Ok(trigger),
            _ => bail!("{text} is no such trigger"),
        });
        let durable: Vec<DurableTrigger> = durable.collect::<Result<_>>()?;
        let deployment =
            Deployment { triggers: Vec::new(), durable, ..Deployment::new(name.parse()?, WorkloadType::V8, artifact) };
        for target in &self.targets {
            self.client.deploy(&deployment, target, &self.keys).await?;
        }
        Ok(())
    }

    /// Kills one as it stands, and starts its next process after a while.
    pub(super) async fn kill(&mut self, index: usize, away: Duration) -> Result<()> {
        let Some(running) = self.running.get_mut(index) else { return Ok(()) };
        if let Some(mut node) = running.take() {
            node.kill().await.context("cannot kill a node")?;
        }
        tokio::time::sleep(away).await;
        if let Some(args) = self.args.get(index) {
            *running = Some(child::node(args)?);
        }
        Ok(())
    }

    /// Kills a process of an agent. Says whether there was one.
    pub(super) fn kill_agent(&self, rng: &mut StdRng) -> bool {
        let of = |args: &NodeArgs| processes_of(&args.state_dir).into_iter().filter(|(_, line)| line.contains("nex-agent"));
        let chosen = self.args.iter().flat_map(of).choose(rng);
        let process = chosen.and_then(|(pid, _)| ProcessId::of(i32::try_from(pid).ok()?));
        process.is_some_and(|process| process.signal(Signal::SIGKILL).unwrap_or(false))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.args.len()
    }

    /// Stops all; gives what is left of them.
    pub(super) async fn end(self) -> Result<Vec<String>> {
        for node in self.running.into_iter().flatten() {
            child::end(node).await?;
        }
        let left = |args: &NodeArgs| left_in(&args.state_dir);
        Ok(self.args.iter().filter_map(left).collect())
    }
}

fn left_in(state_dir: &Path) -> Option<String> {
    let left = processes_of(state_dir);
    (!left.is_empty()).then(|| format!("processes are left: {left:?}"))
}

/// A moment without what was killed.
pub(super) fn away(rng: &mut StdRng) -> Duration {
    Duration::from_millis(rng.random_range(0..AWAY_MS))
}

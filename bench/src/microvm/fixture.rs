//! Fixture of the measurements: sandboxes and an internal bus like a node's, without the node, so that each step can be timed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_nats::Client;
use futures::StreamExt as _;
use nex_node::bus::{BusKeys, InternalBus, Listen};
use nex_node::identity::Identity as NodeIdentity;
use nex_node::journal::Journal;
use nex_node::nats_user::NatsUser;
use nex_node::sandbox::{Host, Sandboxes};
use nex_node::state_dir::StateDir;
use nex_node::{NodeConfig, clock};
use nex_process::Deadline;
use nex_protocol::agent::{Identity, Welcome, subject};
use nex_protocol::id::AgentId;
use nex_sandbox::{Sandbox, SandboxId, SandboxSpec};
use nex_testkit::{dist_binary, machines, nats_server_binary};

use super::steps;
use crate::monitor::Monitor;
use crate::processes::own_time;

/// Longest time from the start of a sandbox to the agent's handshake.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Grace period of a stop.
const GRACE: Duration = Duration::from_millis(500);

/// Sandboxes and a bus for agents.
pub(crate) struct AgentFixture {
    pub(crate) config: NodeConfig,
    pub(crate) resources: PathBuf,
    pub(crate) monitor: Monitor,
    sandboxes: Sandboxes,
    bus: InternalBus,
    keys: BusKeys,
    _state: StateDir,
    dir: tempfile::TempDir,
}

/// An agent after its handshake.
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) sandbox: Box<dyn Sandbox>,
    /// Time from the start to the handshake.
    pub(crate) took: Duration,
    /// Processor time of the monitor until then; the load of the host affects it little.
    pub(crate) processor: Duration,
}

impl AgentFixture {
    pub(crate) async fn open(monitor: Monitor, snapshots: bool) -> Result<Self> {
        let resources =
            machines::resources().context("there is no kernel or root image; run this by `cargo xtask bench --microvm`")?;
        let dir = tempfile::tempdir()?;
        // Monitors run as other users and must be able to traverse the directory.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        let mut config = NodeConfig { sandbox: monitor.choice(), ..NodeConfig::default() };
        config.microvm.snapshots = snapshots;
        let state = StateDir::open(&dir.path().join("state"))?;
        let identity = NodeIdentity::load(&state, "bench".to_owned())?;
        let agent = dist_binary("nex-agent");
        let host =
            Host { node: &identity.node, state_dir: state.root(), agent_binary: &agent, resource_dir: &resources, nats: &[] };
        let sandboxes = Box::pin(Sandboxes::open(&config, host, &BTreeSet::new())).await?;
        let keys = BusKeys::load(&state)?;
        let journal = Journal::open(&state.path("journal.redb"))?;
        let (host, taken) = sandboxes.bus_place();
        let listen = Listen { host, port: None, taken };
        let own = Arc::new(BusKeys::load(&state)?);
        let bus = InternalBus::start(nats_server_binary(), state.path("bus"), own, listen, journal).await?;
        sandboxes.permit_bus(bus.port()).await?;
        Ok(Self { config, resources, monitor, sandboxes, bus, keys, _state: state, dir })
    }

    /// What executes the guests' instructions.
    pub(crate) fn accel(&self) -> String {
        self.sandboxes.tags().remove("nex.sandbox.accel").unwrap_or_default()
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The node's connection to the bus.
    pub(crate) fn client(&self) -> &Client {
        self.bus.client()
    }

    pub(crate) fn bus_url(&self) -> &str {
        self.bus.url()
    }

    /// Credentials of an agent on the bus, and its id.
    pub(crate) fn user(&self) -> (AgentId, NatsUser) {
        let id = AgentId::new(clock::unix_seconds_u32());
        let user = self.keys.agent_user(&id, clock::unix_seconds());
        (id, user)
    }

    /// A proxy in front of the bus that records when an agent connects and what it does.
    pub(crate) async fn bus_proxy(&self) -> Result<steps::BusProxy> {
        let upstream = self.bus_url().trim_start_matches("tls://").to_owned();
        let proxy = steps::BusProxy::open(self.sandboxes.bus_place().0, upstream).await?;
        self.sandboxes.permit_bus(proxy.port()).await?;
        Ok(proxy)
    }

    /// Creates an agent and waits for its handshake.
    pub(crate) async fn agent(&self, bus_url: &str) -> Result<Agent> {
        let (id, user) = self.user();
        let mut handshakes = self.client().subscribe(subject::handshake(&id)).await?;
        self.client().flush().await?;
        let (bus, certificate) = (bus_url.to_owned(), self.bus.certificate().to_owned());
        let identity = Identity { agent: id.clone(), bus, certificate, jwt: user.jwt, seed: user.seed };
        let spec = SandboxSpec {
            id: SandboxId::parse(id.as_str())?,
            identity: serde_json::to_vec(&identity)?,
            size: None,
            memory_mib: None,
            image: None,
        };
        let by = Deadline::after(TIMEOUT);
        let began = Instant::now();
        steps::begin();
        let sandbox = self.sandboxes.provider().create(spec, by).await?;
        let request = by
            .bound(handshakes.next())
            .await
            .with_context(|| format!("no handshake after {}", steps::last()))?
            .context("the bus is gone")?;
        let took = began.elapsed();
        steps::mark(steps::HANDSHAKE);
        let processor = own_time(sandbox.record().leader.pid.unsigned_abs());
        let accepted = Welcome { accepted: true, message: String::new() };
        let reply = request.reply.context("a handshake without a reply subject")?;
        self.client().publish(reply, serde_json::to_vec(&accepted)?.into()).await?;
        Ok(Agent { id, sandbox, took, processor })
    }

    /// Stops an agent; returns the time until everything of it was removed.
    pub(crate) async fn stop(&self, agent: Agent) -> Result<Duration> {
        let record = agent.sandbox.record();
        let began = Instant::now();
        agent.sandbox.stop(GRACE).await;
        let took = began.elapsed();
        let tap = record.network.map(|link| PathBuf::from("/sys/class/net").join(link.tap));
        let process = PathBuf::from(format!("/proc/{}", record.leader.pid));
        for left in [Some(record.dir), Some(process), tap].into_iter().flatten() {
            if left.exists() {
                bail!("{} is left of a stopped agent", left.display());
            }
        }
        Ok(took)
    }

    pub(crate) async fn close(self) {
        let Self { bus, sandboxes, .. } = self;
        bus.stop().await;
        sandboxes.close().await;
    }
}

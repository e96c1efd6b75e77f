//! Fixture of the jail tests: a provider with real agents, observed from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nex_network::{Network, NetworkConfig, NetworkKind, Policy};
use nex_process::cgroup::Cgroups;
use nex_process::confinement::{Mode, Part};
use nex_process::{Deadline, ProcessId};
use nex_sandbox::process::{Limits, ProcessConfig, ProcessNetwork, ProcessProvider, ProcessSandbox};
use nex_sandbox::{Sandbox, SandboxId, SandboxSpec};
use tracing_subscriber::layer::SubscriberExt as _;

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub(crate) fn jail_agent() -> PathBuf {
    match std::env::var_os("NEX_JAIL_AGENT") {
        Some(path) => path.into(),
        None => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/jail-agent"),
    }
}

/// A state directory and a provider on it.
pub(crate) struct Fixture {
    pub(crate) provider: ProcessProvider,
    pub(crate) state: tempfile::TempDir,
    pub(crate) node: String,
    /// Of its network.
    owner: String,
}

pub(crate) fn config(state: &Path, node: &str) -> ProcessConfig {
    ProcessConfig {
        node: node.to_owned(),
        agent_binary: jail_agent(),
        state_dir: state.to_owned(),
        limits: Limits { memory_bytes: 64 << 20, pids: 32, tmp_bytes: 2 << 20, ..Limits::default() },
        uid_base: 712_000,
        require: Vec::new(),
    }
}

/// A network for processes if this user may make one, otherwise the host's.
async fn network(owner: &str, state: &Path, servers: Vec<SocketAddrV4>) -> ProcessNetwork {
    let config = NetworkConfig {
        kind: NetworkKind::Builtin,
        owner: owner.to_owned(),
        state_dir: state.join("network"),
        subnet: None,
        gateway: None,
        policy: Policy { servers, ..Policy::default() },
        limits: None,
    };
    match Network::open(config, soon()).await {
        Ok(network) => ProcessNetwork::Own { network, resolv_conf: None },
        Err(error) => ProcessNetwork::Shared { reason: error.to_string() },
    }
}

pub(crate) async fn fixture_with(change: impl FnOnce(&mut ProcessConfig)) -> Fixture {
    fixture_near(Vec::new(), change).await
}

/// A fixture from which these servers are reached.
pub(crate) async fn fixture_near(servers: Vec<SocketAddrV4>, change: impl FnOnce(&mut ProcessConfig)) -> Fixture {
    listen();
    let state = tempfile::tempdir().unwrap();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let owner = format!("j{:x}x{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let network = network(&owner, state.path(), servers).await;
    let node = format!("t{}{}", std::process::id(), state.path().file_name().unwrap().to_string_lossy().replace(".tmp", ""));
    let mut config = config(state.path(), &node);
    change(&mut config);
    Fixture { provider: ProcessProvider::open(config, network, soon()).await.unwrap(), state, node, owner }
}

pub(crate) async fn fixture() -> Fixture {
    fixture_with(|_| {}).await
}

/// A failing test removes its network, too.
impl Drop for Fixture {
    fn drop(&mut self) {
        let (owner, state) = (self.owner.clone(), self.state.path().join("network"));
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(nex_network::remove_leftovers(&owner, &state, soon()));
        };
        let _removed = std::thread::spawn(remove).join();
    }
}

impl Fixture {
    pub(crate) async fn start(&self, id: &str, identity: &str) -> Box<ProcessSandbox> {
        let sandbox = Box::new(self.provider.make(spec(id, identity), soon()).await.unwrap());
        sandbox.attach_file(&workload_copy(self.state.path()), "workload").await.unwrap();
        sandbox
    }

    /// A provider of the same node on the same state, as its next process has it.
    pub(crate) async fn next_process(&self) -> ProcessProvider {
        let network = network(&self.owner, self.state.path(), Vec::new()).await;
        ProcessProvider::open(config(self.state.path(), &self.node), network, soon()).await.unwrap()
    }

    pub(crate) fn traces(&self) -> Vec<PathBuf> {
        let dirs = fs::read_dir(self.state.path().join("agents")).unwrap().flatten().map(|entry| entry.path());
        let groups = Cgroups::detect().leftovers(&format!("nex-{}-", self.node));
        dirs.chain(groups.iter().flat_map(|group| group.paths().to_vec())).collect()
    }

    pub(crate) async fn leaves_no_trace(&self) {
        until("nothing is left", || self.traces().is_empty()).await;
    }
}

pub(crate) fn spec(id: &str, identity: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::parse(id).unwrap(),
        identity: identity.as_bytes().to_vec(),
        size: None,
        memory_mib: None,
        image: None,
    }
}

/// On the file system of the state directory, as a node's cache is.
pub(crate) fn workload_copy(state: &Path) -> PathBuf {
    let copy = state.join("cached-workload");
    if !copy.exists() {
        fs::copy(jail_agent(), &copy).unwrap();
    }
    copy
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(soon().bound(wait).await.is_ok(), "in vain waited until {what}");
}

/// The value that an agent reports under a name.
pub(crate) async fn reported(sandbox: &dyn Sandbox, name: &str) -> String {
    let key = (sandbox.id().to_string(), name.to_owned());
    let digits = || SAID.lock().unwrap().get(&key).filter(|(_, is_whole)| *is_whole).map(|(digits, _)| digits.clone());
    until(&format!("{name} is told"), || digits().is_some()).await;
    let digits = digits().unwrap();
    let bytes = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

/// Reports of agents, by id and name, and whether a report is complete. Each id belongs to one test.
static SAID: Mutex<BTreeMap<(String, String), (String, bool)>> = Mutex::new(BTreeMap::new());

/// Collects reports from the log, an agent's only output here.
struct Listener;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _context: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some((name, piece)) = fields.line.trim_matches('"').strip_prefix('@').and_then(|line| line.split_once(' ')) else {
            return;
        };
        let mut said = SAID.lock().unwrap();
        let (digits, is_whole) = said.entry((fields.agent_id, name.to_owned())).or_default();
        if piece == "." { *is_whole = true } else { digits.push_str(piece) }
    }
}

#[derive(Default)]
struct Fields {
    agent_id: String,
    line: String,
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "agent_id" => self.agent_id = format!("{value:?}"),
            "line" => self.line = format!("{value:?}"),
            _ => {}
        }
    }
}

fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap();
    });
}

/// Every process of this host that descends from that one or is in its group.
pub(crate) fn processes_of(sandbox: &dyn Sandbox) -> Vec<ProcessId> {
    let leader = sandbox.record().leader.pid;
    let mut found = BTreeSet::from([leader]);
    loop {
        let before = found.len();
        for pid in fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            if parent.is_some_and(|parent| found.contains(&parent)) {
                found.insert(pid);
            }
        }
        if found.len() == before {
            return found.into_iter().filter_map(ProcessId::of).collect();
        }
    }
}

/// Whether everything that an agent starts can be counted and found.
pub(crate) fn holds_together(test: &str, fixture: &Fixture) -> bool {
    let confinement = fixture.provider.confinement();
    if confinement.lacks(&[Part::User]).is_none() || confinement.lacks(&[Part::Cgroup]).is_none() {
        return true;
    }
    nex_testkit::announce(&test, &confinement);
    false
}

pub(crate) fn has_own_root(test: &str, fixture: &Fixture) -> bool {
    if fixture.provider.confinement().mode != Mode::Plain {
        return true;
    }
    nex_testkit::announce(&test, &fixture.provider.confinement());
    false
}

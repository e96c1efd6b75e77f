//! What every test here has to itself: a nats-server, a node with its state directory, a client, and an ear for all that the node tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use nex_bus::connect::connect;
use nex_bus::settings::ConnectionSettings;
use nex_client::Client;
use nex_client::artifact::{Artifact, DEFAULT_BUCKET, LocalFile, NewBucket, Upload};
use nex_client::deploy::{DeployError, Deployment, Keys, Target};
use nex_client::request::RequestError;
use nex_node::{Node, NodeConfig, NodeOptions, RawConfig};
use nex_protocol::control::WorkloadSummary;
use nex_protocol::deploy::{DeployResponse, Location, WorkloadType};
use nex_protocol::envelope::Failure;
use nex_protocol::event::CloudEvent;
use nex_protocol::log::LogLine;
use nex_testkit::{NatsServer, dist_binary, eventually, machines, nats_server_binary};
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longest wait for anything that must happen.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for anything that must happen.
pub(crate) fn timeout() -> Duration {
    machines::timeout(TIMEOUT)
}

/// Silence after which no second answer is expected.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct World {
    node: Option<Box<Node>>,
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) dir: TempDir,
    pub(crate) nats: NatsServer,
    pub(crate) connection: ConnectionSettings,
    pub(crate) config: Value,
    heard: Arc<Mutex<Vec<Message>>>,
    _ear: JoinSet<()>,
}

impl World {
    /// A plain server, and a node whose configuration has these members besides the usual ones.
    pub(crate) fn start(config: Value) -> BoxFuture<'static, Self> {
        Box::pin(async {
            let nats = NatsServer::start().await;
            let connection = ConnectionSettings::to_servers(&nats.url());
            Self::start_on(nats, connection, config).await
        })
    }

    pub(crate) async fn start_on(nats: NatsServer, connection: ConnectionSettings, config: Value) -> Self {
        let mut world = Self::without_node(nats, connection, config).await;
        world.start_node().await;
        world
    }

    pub(crate) async fn without_node(nats: NatsServer, connection: ConnectionSettings, config: Value) -> Self {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init().ok();
        let nats_client = Box::pin(connect(&connection)).await.unwrap();
        let (heard, mut ear) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for subject in ["$NEX.events.>", "$NEX.logs.>"] {
            let mut told = nats_client.subscribe(subject).await.unwrap();
            let heard = Arc::clone(&heard);
            ear.spawn(async move {
                while let Some(message) = told.next().await {
                    heard.lock().unwrap().push(message);
                }
            });
        }
        nats_client.flush().await.unwrap();
        Self {
            node: None,
            client: Client::new(nats_client, "default".parse().unwrap()),
            keys: Keys { issuer: KeyPair::new_account(), sender: XKey::new() },
            dir: TempDir::with_prefix("nex-node-").unwrap(),
            nats,
            connection,
            config,
            heard,
            _ear: ear,
        }
    }

    pub(crate) fn options(&self) -> NodeOptions {
        options(self.connection.clone(), self.state(), &self.config)
    }

    pub(crate) async fn start_node(&mut self) {
        let node = Box::pin(Node::start(self.options())).await.unwrap();
        node.warm().await.unwrap();
        self.node = Some(Box::new(node));
    }

    /// What the next node is configured with.
    pub(crate) fn set_config(&mut self, config: Value) {
        self.config = config;
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Stops the node and expects that nothing of it is left.
    pub(crate) async fn stop(&mut self) {
        Box::pin(self.node.take().unwrap().stop()).await;
        assert_eq!(self.agents(), BTreeMap::new(), "sandboxes are left");
        let left: Vec<_> = processes().into_iter().filter(|(_, line)| line.contains(self.state().to_str().unwrap())).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
    }

    pub(crate) fn target(&self) -> Target {
        let identity = self.node().identity();
        Target::new(identity.node.clone(), identity.xkey.public_key(), &identity.xkey_signature).unwrap()
    }

    pub(crate) async fn upload(&self, key: &str, bytes: &[u8]) -> Artifact {
        let file = self.dir.path().join(key);
        fs::write(&file, bytes).unwrap();
        let location = Location::new(DEFAULT_BUCKET, key).unwrap();
        let file = LocalFile::read(file).await.unwrap();
        let upload = Upload { location, jetstream_domain: None, new_bucket: NewBucket::default(), file };
        Box::pin(self.client.upload(&upload, |_, _| ())).await.unwrap().artifact
    }

    pub(crate) async fn prepare(&self, name: &str, kind: WorkloadType, bytes: &[u8]) -> Deployment {
        Deployment::new(name.parse().unwrap(), kind, self.upload(name, bytes).await)
    }

    /// Another node on the same NATS, and where to deploy to it.
    pub(crate) async fn another_node(&self, dir: &Path) -> (Node, Target) {
        let node = Box::pin(Node::start(options(self.connection.clone(), dir.join("state"), &json!({})))).await.unwrap();
        node.warm().await.unwrap();
        let identity = node.identity();
        let target = Target::new(identity.node.clone(), identity.xkey.public_key(), &identity.xkey_signature).unwrap();
        (node, target)
    }

    pub(crate) async fn deploy(&self, deployment: &Deployment) -> DeployResponse {
        Box::pin(self.client.deploy(deployment, &self.target(), &self.keys)).await.unwrap()
    }

    /// The user's NATS as a workload reaches it: on the gateway, from inside a machine.
    pub(crate) fn nats_for_workloads(&self) -> String {
        let url = self.nats.url();
        if machines::in_machines() { url.replace("127.0.0.1", "host.nex.internal") } else { url }
    }

    /// A workload without anything optional.
    pub(crate) async fn run(&self, name: &str, kind: WorkloadType, bytes: &[u8]) -> DeployResponse {
        self.deploy(&self.prepare(name, kind, bytes).await).await
    }

    pub(crate) async fn refused(&self, deployment: &Deployment) -> Failure {
        match self.client.deploy(deployment, &self.target(), &self.keys).await {
            Err(DeployError::Request(RequestError::Refused(failure))) => failure,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    pub(crate) async fn stop_workload(&self, started: &DeployResponse) {
        let (id, name) = (started.id.parse().unwrap(), started.name.parse().unwrap());
        self.client.stop(&self.target().node, &id, &name, &self.keys.issuer).await.unwrap();
    }

    pub(crate) async fn call(&self, subject: &str, payload: &str) -> String {
        let reply = self.client.call(subject, payload.to_owned().into(), machines::timeout(Duration::from_secs(5))).await;
        String::from_utf8(reply.unwrap_or_else(|error| panic!("call of {subject}: {error}")).to_vec()).unwrap()
    }

    /// Calls until an answer comes: a function whose agent died is away for a moment.
    pub(crate) async fn call_again(&self, subject: &str, payload: &str) -> String {
        let answer = Mutex::new(String::new());
        let answered = eventually(timeout(), async || {
            let reply = self.client.call(subject, payload.to_owned().into(), Duration::from_secs(2)).await;
            let reply = reply.ok().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            reply.map(|text| *answer.lock().unwrap() = text).is_some()
        });
        assert!(answered.await, "{subject} is not served again");
        answer.into_inner().unwrap()
    }

    pub(crate) async fn workload(&self, id: &str) -> Option<WorkloadSummary> {
        let found = self.client.workloads(Some(id), Duration::from_secs(2)).await.unwrap_or_default();
        found.into_iter().next().map(|running| running.workload)
    }

    /// Asks all questions at once; every answer to each, until nothing was said for a while.
    pub(crate) async fn ask_all(&self, questions: &[(String, Vec<u8>)]) -> Vec<Vec<Message>> {
        self.gather(questions, QUIET).await
    }

    async fn gather(&self, questions: &[(String, Vec<u8>)], quiet: Duration) -> Vec<Vec<Message>> {
        let nats = self.client.nats();
        let inbox = nats.new_inbox();
        let mut answers = nats.subscribe(format!("{inbox}.*")).await.unwrap();
        for (number, (subject, body)) in questions.iter().enumerate() {
            nats.publish_with_reply(subject.clone(), format!("{inbox}.{number}"), body.clone().into()).await.unwrap();
        }
        let mut found = vec![Vec::new(); questions.len()];
        loop {
            let wait = if found.iter().all(|answers| !answers.is_empty()) { quiet } else { timeout() };
            let Ok(Some(message)) = tokio::time::timeout(wait, answers.next()).await else { return found };
            let number: usize = message.subject.rsplit('.').next().unwrap().parse().unwrap();
            found[number].push(message);
        }
    }

    /// One question, exactly one answer.
    pub(crate) async fn ask(&self, subject: &str, body: impl Into<Vec<u8>>) -> Value {
        let answers = self.gather(&[(subject.to_owned(), body.into())], QUIET / 6).await.remove(0);
        assert_eq!(answers.len(), 1, "answers on {subject}: {answers:?}");
        serde_json::from_slice(&answers[0].payload).unwrap()
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<CloudEvent> {
        let heard = self.heard.lock().unwrap();
        let told = heard.iter().filter(|message| message.subject.starts_with("$NEX.events."));
        let events = told.map(|message| serde_json::from_slice::<CloudEvent>(&message.payload).unwrap());
        events.filter(|event| event.r#type == kind).collect()
    }

    /// Events of a kind about one workload.
    pub(crate) fn events_of(&self, kind: &str, id: &str) -> Vec<CloudEvent> {
        self.events(kind).into_iter().filter(|event| event.data["workload_id"] == id).collect()
    }

    /// Log lines and the subjects they came on.
    pub(crate) fn logs(&self) -> Vec<(String, LogLine)> {
        let heard = self.heard.lock().unwrap();
        let told = heard.iter().filter(|message| message.subject.starts_with("$NEX.logs."));
        told.map(|message| (message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap())).collect()
    }

    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.logs().iter().any(|(_, line)| line.text.contains(text))
    }

    /// Waits for a condition on what is seen of the world.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let held = eventually(timeout(), || std::future::ready(holds(self))).await;
        assert!(held, "in vain waited until {what}; told: {:#?}", self.logs());
    }

    /// Waits until as many agents are warm as the pool is to have.
    pub(crate) async fn until_warm(&self, count: usize) {
        let mut status = self.node().pool_status();
        let warm = tokio::time::timeout(timeout(), status.wait_for(|status| status.ready == count)).await;
        warm.expect("the pool is not refilled").unwrap();
    }

    /// The agents there are, with the pids of their first processes.
    pub(crate) fn agents(&self) -> BTreeMap<String, i32> {
        let entries = fs::read_dir(self.state().join("agents")).into_iter().flatten().flatten();
        let record = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path.join("record.json")).ok()?).ok();
        entries
            .filter_map(|entry| {
                let id = entry.file_name().into_string().unwrap();
                Some((id, i32::try_from(record(entry.path())?["leader"]["pid"].as_i64()?).unwrap()))
            })
            .collect()
    }

    /// Deploys and says which agent it got. Only where nothing else is deployed meanwhile.
    pub(crate) async fn deploy_watched(&self, deployment: &Deployment) -> (DeployResponse, i32) {
        self.until_warm(1).await;
        let warm = self.warm_agents();
        assert_eq!(warm.len(), 1, "{warm:?}");
        let started = self.deploy(deployment).await;
        (started, *warm.values().next().unwrap())
    }

    /// Agents that wait for a workload: those whose artifact directory is empty.
    pub(crate) fn warm_agents(&self) -> BTreeMap<String, i32> {
        let empty = |id: &str| {
            let dir = self.state().join("agents").join(id);
            // A machine that has no artifact yet has the empty drive.
            let file = |path: PathBuf| fs::metadata(path).map(|found| found.ino()).ok();
            // The jailer's chroot.
            let chroot = dir.join("vm/firecracker").join(id).join("root");
            let drive = || {
                let drive = file(dir.join("vm/drive0.img")).or_else(|| file(chroot.join("drive0.img")));
                drive.is_some_and(|it| Some(it) == file(self.state().join("drives/empty")))
            };
            fs::read_dir(dir.join("artifact")).map_or_else(|_machine| drive(), |mut files| files.next().is_none())
        };
        self.agents().into_iter().filter(|(id, _)| empty(id)).collect()
    }

    /// Pid of the internal nats-server.
    pub(crate) fn bus_pid(&self) -> Option<i32> {
        let config = self.state().join("bus/server.conf");
        let found = processes().into_iter().find(|(_, line)| line.contains(config.to_str().unwrap()));
        found.map(|(pid, _)| pid)
    }

    /// Where the internal nats-server says that it listens, once it has said so.
    pub(crate) fn bus_url(&self) -> Option<String> {
        let file = fs::read_dir(self.state().join("bus/ports")).ok()?.flatten().last()?;
        let ports: Value = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        Some(ports["nats"][0].as_str()?.to_owned())
    }

    /// Connects to the bus with what an agent knows of it.
    pub(crate) async fn connect_to_bus(
        &self,
        options: async_nats::ConnectOptions,
    ) -> Result<async_nats::Client, async_nats::ConnectError> {
        let certificate = self.state().join("bus/certificate.pem");
        options.add_root_certificates(certificate).tls_first().connect(self.bus_url().unwrap()).await
    }
}

/// Options of a node whose configuration has these members besides the usual ones.
pub(crate) fn options(connection: ConnectionSettings, state_dir: PathBuf, config: &Value) -> NodeOptions {
    let mut usual = json!({"sandbox": machines::sandbox(), "workload_types": ["native", "v8", "wasm"], "stop_grace_ms": 2000});
    // On a busy machine an agent takes its time, and on an emulated one all that it does.
    usual["agent_handshake_timeout_ms"] = if machines::in_machines() { 60_000 } else { 15_000 }.into();
    if machines::in_machines() {
        usual["workload_limits"] = json!({"call_timeout_ms": 30_000});
        // The first one as well, which boots once more in the lab's emulation.
        usual["boot_timeout_ms"] = 120_000.into();
    }
    for (key, value) in config.as_object().unwrap() {
        usual[key] = value.clone();
    }
    let config = NodeConfig::resolve(RawConfig::parse(&usual.to_string()).unwrap()).unwrap();
    let (agent_binary, nats_server) = (dist_binary("nex-agent"), nats_server_binary());
    let resource_dir = machines::resources().unwrap_or_else(|| state_dir.join("resources"));
    NodeOptions { connection, config, state_dir, agent_binary, nats_server, resource_dir, nexus: "test".into() }
}

/// Pids and command lines of this host.
pub(crate) fn processes() -> BTreeSet<(i32, String)> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| Some((pid, String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).into_owned())))
        .collect()
}

pub(crate) fn kill9(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

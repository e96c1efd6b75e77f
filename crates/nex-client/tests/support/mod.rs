//! Fixture of the client's tests: a real nats-server, and a node reduced to its control API.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_imports,
    clippy::print_stdout,
    reason = "test support; each program uses its part"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt as _;
use futures::stream::select_all;
use nex_bus::connect::connect;
use nex_bus::settings::ConnectionSettings;
use nex_protocol::claims::Claims;
use nex_protocol::control::*;
use nex_protocol::deploy::{DeployRequest, DeployResponse, StopRequest, StopResponse, WorkloadType};
use nex_protocol::envelope::{ErrorCode, Failure, failure, kind, success};
use nex_protocol::id::{NodeId, WorkloadId};
use nex_protocol::seal::{self, Environment};
use nex_protocol::subject::Control;
use nkeys::{KeyPair, XKey};
use tokio::task::JoinSet;

/// A nats-server of its own, killed on drop.
pub(crate) struct Nats {
    pub(crate) url: String,
    _child: tokio::process::Child,
    _directory: tempfile::TempDir,
}

impl Nats {
    /// Starts one on a free port.
    pub(crate) async fn start(jetstream: bool) -> Self {
        Self::start_with(jetstream, -1, "").await
    }

    /// Starts one on a port with a configuration of its own.
    pub(crate) async fn start_with(jetstream: bool, port: i32, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("nats.conf"), config).unwrap();
        let path = directory.path().to_str().unwrap();
        let mut command = tokio::process::Command::new(nex_testkit::nats_server_binary());
        let port = port.to_string();
        command.args(["-a", "127.0.0.1", "-p", &port, "--ports_file_dir", path, "-l", &format!("{path}/log")]);
        command.args(["-c", &format!("{path}/nats.conf")]);
        if jetstream {
            command.args(["-js", "-sd", path]);
        }
        let child = command.kill_on_drop(true).spawn().unwrap();
        let ports = directory.path().join(format!("nats-server_{}.ports", child.id().unwrap()));
        let url = wait_for("the ports file", || {
            let ports: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&ports).ok()?).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        })
        .await;
        Self { url, _child: child, _directory: directory }
    }

    pub(crate) async fn connect(&self) -> async_nats::Client {
        connect(&ConnectionSettings::to_servers(&self.url)).await.unwrap()
    }
}

/// Waits until the server has processed everything sent on a connection; a flush alone does not.
pub(crate) async fn settle(nats: &async_nats::Client) {
    let inbox = nats.new_inbox();
    let mut echo = nats.subscribe(inbox.clone()).await.unwrap();
    nats.publish(inbox, "".into()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), echo.next()).await.unwrap();
}

/// Polls until a condition gives something.
pub(crate) async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Options of a test node.
#[derive(Clone)]
pub(crate) struct Properties {
    pub(crate) name: &'static str,
    pub(crate) types: Vec<WorkloadType>,
    pub(crate) warm: usize,
    pub(crate) silent_decline: bool,
}

impl Default for Properties {
    fn default() -> Self {
        let types = vec![WorkloadType::Native, WorkloadType::V8, WorkloadType::Wasm];
        Self { name: "quiet-lamp", types, warm: 1, silent_decline: false }
    }
}

/// A workload of a test node.
pub(crate) struct Deployed {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) request: DeployRequest,
    pub(crate) claims: Claims,
    pub(crate) environment: Environment,
}

struct Inner {
    id: NodeId,
    xkey: XKey,
    xkey_signature: String,
    properties: Properties,
    nats: async_nats::Client,
    deployed: Mutex<BTreeMap<String, Deployed>>,
    lame: Mutex<bool>,
    triggers: tokio::sync::Mutex<JoinSet<()>>,
}

/// A node reduced to its control API; functions echo. Gone on drop.
pub(crate) struct TestNode {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

impl TestNode {
    pub(crate) async fn start(nats: &Nats, properties: Properties) -> Self {
        let client = nats.connect().await;
        let (key, xkey) = (KeyPair::new_server(), XKey::new());
        let inner = Arc::new(Inner {
            id: key.public_key().parse().unwrap(),
            xkey_signature: nex_protocol::seal::sign_xkey(&key, &xkey.public_key()).unwrap(),
            xkey,
            properties,
            nats: client.clone(),
            deployed: Mutex::default(),
            lame: Mutex::default(),
            triggers: tokio::sync::Mutex::default(),
        });
        let mut subscriptions = Vec::new();
        for subject in Control::subscriptions(&inner.id) {
            subscriptions.push(client.subscribe(subject).await.unwrap());
        }
        settle(&client).await;
        let mut tasks = JoinSet::new();
        let node = Arc::clone(&inner);
        tasks.spawn(async move {
            let mut messages = select_all(subscriptions);
            while let Some(message) = messages.next().await {
                if let (Some(body), Some(reply)) = (node.answer(&message).await, message.reply) {
                    node.nats.publish(reply, body.into()).await.unwrap();
                    node.nats.flush().await.unwrap();
                }
            }
        });
        Self { inner, _tasks: tasks }
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.inner.id
    }

    pub(crate) fn xkey(&self) -> String {
        self.inner.xkey.public_key()
    }

    /// What is deployed, seen by a closure.
    pub(crate) fn deployed<T>(&self, look: impl FnOnce(&BTreeMap<String, Deployed>) -> T) -> T {
        look(&self.inner.deployed.lock().unwrap())
    }

    pub(crate) fn is_lame(&self) -> bool {
        *self.inner.lame.lock().unwrap()
    }
}

impl Inner {
    fn tags(&self) -> Tags {
        let mut tags = Tags::from([
            ("nex.os".into(), "linux".into()),
            ("nex.arch".into(), if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.into()),
            ("node_name".into(), self.properties.name.into()),
            ("nex.unsafe".into(), "true".into()),
        ]);
        if *self.lame.lock().unwrap() {
            tags.insert("nex.lameduck".into(), "true".into());
        }
        tags
    }

    fn summary(&self, declined: Vec<String>) -> NodeSummary {
        NodeSummary {
            node_id: self.id.to_string(),
            nexus: "nexus".into(),
            version: "9.9.9".into(),
            uptime: "10m15s".into(),
            target_xkey: self.xkey.public_key(),
            xkey_signature: self.xkey_signature.clone(),
            tags: self.tags(),
            running_machines: self.deployed.lock().unwrap().len(),
            warm_agents: Some(self.properties.warm),
            declined,
            taken_trigger: None,
        }
    }

    async fn answer(&self, message: &Message) -> Option<Vec<u8>> {
        match Control::parse(&message.subject)? {
            Control::Auction => {
                let request: AuctionRequest = serde_json::from_slice(&message.payload).unwrap_or_default();
                let mut declined = request.mismatches(&self.tags(), false, &self.properties.types);
                if *self.lame.lock().unwrap() {
                    declined.push("it is in lame duck mode".into());
                }
                let silent = !declined.is_empty() && (self.properties.silent_decline || !request.explain);
                (!silent).then(|| success(kind::AUCTION, &self.summary(declined)))
            }
            Control::Ping => Some(success(kind::PING, &self.summary(Vec::new()))),
            Control::WorkloadPing { namespace, workload } => self.workload_ping(&namespace, workload.as_deref()),
            Control::Info { namespace } => Some(success(kind::INFO, &self.info(&namespace))),
            Control::Deploy { namespace } => Some(self.deploy(&namespace, &message.payload).await),
            Control::Stop { .. } => Some(self.stop(&message.payload)),
            // As a node of 0.2.7, it keeps nothing, and replays nothing.
            Control::History { .. } | Control::Replay { .. } => None,
            Control::LameDuck => {
                *self.lame.lock().unwrap() = true;
                Some(success(kind::LAME_DUCK, &LameDuckResponse { node_id: self.id.to_string(), success: true }))
            }
        }
    }

    fn workload_ping(&self, namespace: &str, wanted: Option<&str>) -> Option<Vec<u8>> {
        let deployed = self.deployed.lock().unwrap();
        let matches = |id: &str, d: &Deployed| d.namespace == namespace && wanted.is_none_or(|w| w == id || w == d.name);
        let running_machines: Vec<_> = deployed
            .iter()
            .filter(|(id, d)| matches(id, d))
            .map(|(id, d)| WorkloadSummary {
                id: id.clone(),
                namespace: namespace.into(),
                name: d.name.clone(),
                r#type: d.request.r#type.clone().unwrap_or_default(),
                uptime: "3s".into(),
                state: "running".into(),
                triggers: d.request.trigger_subjects.clone().unwrap_or_default(),
                revision: d.request.revision.clone(),
                ..WorkloadSummary::default()
            })
            .collect();
        let body =
            WorkloadPingResponse { node_id: self.id.to_string(), tags: self.tags(), running_machines, ..Default::default() };
        (!body.running_machines.is_empty()).then(|| success(kind::PING, &body))
    }

    fn info(&self, namespace: &str) -> InfoResponse {
        let deployed = self.deployed.lock().unwrap();
        let machine = |(id, d): (&String, &Deployed)| Machine {
            id: id.clone(),
            healthy: true,
            uptime: "3s".into(),
            namespace: namespace.into(),
            workload: MachineWorkload {
                name: d.name.clone(),
                description: d.request.description.clone().unwrap_or_default(),
                runtime: "0ns".into(),
                r#type: d.request.r#type.clone().unwrap_or_default(),
                hash: d.claims.nats.hash.clone().unwrap_or_default(),
            },
        };
        InfoResponse {
            version: "9.9.9".into(),
            uptime: "10m15s".into(),
            public_xkey: self.xkey.public_key(),
            xkey_signature: self.xkey_signature.clone(),
            tags: self.tags(),
            memory: Some(Memory { total: 3, free: 1, available: 2 }),
            machines: deployed.iter().filter(|(_, d)| d.namespace == namespace).map(machine).collect(),
            supported_workload_types: self.properties.types.iter().map(ToString::to_string).collect(),
            ..InfoResponse::default()
        }
    }

    async fn deploy(&self, namespace: &str, body: &[u8]) -> Vec<u8> {
        let refuse = |code, why: String| failure(kind::RUN, &Failure::new(code, why));
        let request: DeployRequest = serde_json::from_slice(body).unwrap();
        let claims = match Claims::decode(request.workload_jwt.as_deref().unwrap_or_default()) {
            Ok(claims) => claims,
            Err(error) => return refuse(ErrorCode::Denied, error.to_string()),
        };
        if claims.sub == "forbidden" {
            return refuse(ErrorCode::Denied, format!("invalid workload issuer: {}", claims.iss));
        }
        let (sealed, sender) = (request.environment.clone().unwrap_or_default(), request.sender_public_key.clone());
        let environment = match seal::open(&sealed, &self.xkey, &sender.unwrap_or_default()) {
            Ok(environment) => environment,
            Err(error) => return refuse(ErrorCode::BadRequest, error.to_string()),
        };
        for subject in request.trigger_subjects.iter().flatten() {
            let mut calls = self.nats.queue_subscribe(subject.clone(), claims.sub.clone()).await.unwrap();
            settle(&self.nats).await;
            let nats = self.nats.clone();
            self.triggers.lock().await.spawn(async move {
                while let Some(call) = calls.next().await {
                    if let Some(reply) = call.reply {
                        nats.publish(reply, call.payload).await.unwrap();
                    }
                }
            });
        }
        let id = WorkloadId::new(1_700_000_000).to_string();
        let (name, issuer) = (claims.sub.clone(), claims.iss.clone());
        let deployed =
            Deployed { namespace: namespace.into(), name: name.clone(), issuer: issuer.clone(), request, claims, environment };
        self.deployed.lock().unwrap().insert(id.clone(), deployed);
        success(kind::RUN, &DeployResponse { started: true, id, issuer, name, exit_code: None })
    }

    fn stop(&self, body: &[u8]) -> Vec<u8> {
        let refuse = |code, why: &str| failure(kind::STOP, &Failure::new(code, why));
        let request: StopRequest = serde_json::from_slice(body).unwrap();
        let id = request.workload_id.unwrap_or_default();
        let Ok(claims) = Claims::decode(&request.workload_jwt.unwrap_or_default()) else {
            return refuse(ErrorCode::Denied, "Invalid stop request: could not decode workload JWT");
        };
        let mut deployed = self.deployed.lock().unwrap();
        match deployed.get(&id) {
            None => return refuse(ErrorCode::NotFound, "No such workload"),
            Some(own) if own.issuer != claims.iss => {
                let why = "Invalid stop request: the only entity allowed to terminate a workload is the issuer that originally started it";
                return refuse(ErrorCode::Denied, why);
            }
            Some(_) => {}
        }
        deployed.remove(&id);
        success(kind::STOP, &StopResponse { stopped: true, id, issuer: claims.iss, name: claims.sub })
    }
}

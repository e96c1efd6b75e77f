//! The node's side of agent protocol 2, played on a real nats-server towards a real agent in a jailed process.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, Subscriber};
use futures::StreamExt as _;
use nex_process::Deadline;
use nex_protocol::agent::subject::{self, FromAgent};
use nex_protocol::agent::{AgentEvent, Answer, Deploy, EventAck, Handshake, Identity, Invocation, Limits, Logs, Outcome};
use nex_protocol::agent::{TriggerKind, Undeploy, Welcome, report};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::{AgentId, InstanceId};
use nex_protocol::seal::{Environment, seal};
use nex_sandbox::process::{self, ProcessConfig, ProcessNetwork, ProcessProvider};
use nex_sandbox::{Sandbox, SandboxId, SandboxProvider as _, SandboxSpec};
use nex_testkit::{NatsOptions, NatsServer, dist_binary};
use nkeys::{KeyPair, XKey};
use tempfile::TempDir;

/// Longest wait for anything that must happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) agent: AgentId,
    pub(crate) handshake: Handshake,
    pub(crate) sandbox: Box<dyn Sandbox>,
    bus: Client,
    heard: Subscriber,
    key: XKey,
    dir: TempDir,
    asking: std::sync::Mutex<tokio::task::JoinSet<()>>,
    /// The bus.
    pub(crate) server: NatsServer,
}

impl Node {
    /// An agent that has shaken hands.
    pub(crate) async fn start() -> Self {
        let certified = vec!["127.0.0.1".to_owned()];
        let server = NatsServer::start_with(NatsOptions { certified, ..NatsOptions::default() }).await;
        let bus = server.client().await;
        let mut heard = bus.subscribe(subject::ALL_AGENTS).await.unwrap();
        bus.flush().await.unwrap();
        let agent = AgentId::new(1);
        let dir = TempDir::with_prefix("nex-agent-").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let config = ProcessConfig {
            node: "conform".into(),
            agent_binary: dist_binary("nex-agent"),
            state_dir: dir.path().to_owned(),
            limits: process::Limits::default(),
            uid_base: 713_000,
            require: Vec::new(),
        };
        let network = ProcessNetwork::Shared { reason: "the bus of this test is on the host's loopback".into() };
        let provider = ProcessProvider::open(config, network, Deadline::after(TIMEOUT)).await.unwrap();
        let identity = Identity {
            agent: agent.clone(),
            bus: format!("nats://127.0.0.1:{}", server.port()),
            certificate: server.certificate(),
            jwt: "not checked by this server".into(),
            seed: KeyPair::new_user().seed().unwrap(),
        };
        let id = SandboxId::parse(agent.as_str()).unwrap();
        let spec =
            SandboxSpec { id, identity: serde_json::to_vec(&identity).unwrap(), size: None, memory_mib: None, image: None };
        let sandbox = provider.create(spec, Deadline::after(TIMEOUT)).await.unwrap();
        let message = tokio::time::timeout(TIMEOUT, heard.next()).await.unwrap().unwrap();
        assert_eq!(FromAgent::parse(&message.subject), Some((agent.clone(), FromAgent::Handshake)));
        assert!(subject::is_inbox_of(&agent, message.reply.as_ref().unwrap()));
        let welcome = serde_json::to_vec(&Welcome { accepted: true, message: String::new() }).unwrap();
        bus.publish(message.reply.unwrap(), welcome.into()).await.unwrap();
        let handshake = serde_json::from_slice(&message.payload).unwrap();
        Self { agent, handshake, sandbox, bus, heard, key: XKey::new(), dir, asking: std::sync::Mutex::default(), server }
    }

    /// A request that deploys these bytes, and the file brought into the sandbox.
    pub(crate) async fn prepare(&self, kind: WorkloadType, name: &str, bytes: &[u8]) -> Deploy {
        let file = self.dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        let artifact = self.sandbox.attach_file(Path::new(&file), name).await.unwrap();
        let memory_bytes = if kind == WorkloadType::Native { 0 } else { 32 << 20 };
        Deploy {
            namespace: "default".parse().unwrap(),
            name: "conform".parse().unwrap(),
            r#type: kind,
            artifact: artifact.to_string_lossy().into_owned(),
            digest: Digest::of(bytes),
            is_typescript: false,
            is_shared: false,
            precompiled: None,
            argv: Vec::new(),
            environment: seal(&Environment::new(), &self.key, &self.handshake.xkey).unwrap(),
            sealed_by: self.key.public_key(),
            limits: Limits { call_timeout_ms: 20_000, memory_bytes, concurrency: 4, reply_bytes: 1 << 20, ..Limits::default() },
            triggers: None,
            health: None,
        }
    }

    pub(crate) async fn deploy(&self, instance: &InstanceId, request: &Deploy) -> Answer {
        let body = serde_json::to_vec(request).unwrap();
        serde_json::from_slice(&self.ask(subject::deploy(&self.agent, instance), HeaderMap::new(), body).await.payload).unwrap()
    }

    /// A map sealed to the agent, and the key that it is sealed by.
    pub(crate) fn seal(&self, environment: &Environment) -> (String, String) {
        (seal(environment, &self.key, &self.handshake.xkey).unwrap(), self.key.public_key())
    }

    pub(crate) async fn undeploy(&self, instance: &InstanceId, grace_ms: u64) -> Answer {
        let body = serde_json::to_vec(&Undeploy { grace_ms, signal: None }).unwrap();
        serde_json::from_slice(&self.ask(subject::undeploy(&self.agent, instance), HeaderMap::new(), body).await.payload).unwrap()
    }

    pub(crate) async fn invoke(&self, instance: &InstanceId, deadline_ms: u64, payload: &str) -> Outcome {
        let invocation = Invocation {
            trigger: TriggerKind::Subject,
            subject: "calls.me".into(),
            deadline_ms,
            attempt: 1,
            host_calls: nex_protocol::agent::HostCalls::Live,
        };
        let headers = nex_bus::invocation::headers(&invocation, None);
        let answer = self.ask(subject::invoke(&self.agent, instance), headers, payload.into()).await;
        nex_bus::invocation::read_outcome(answer).0
    }

    pub(crate) async fn ask(&self, subject: String, headers: HeaderMap, body: Vec<u8>) -> Message {
        let request = Request::new().headers(headers).payload(body.into()).timeout(Some(TIMEOUT));
        self.bus.send_request(subject, request).await.unwrap()
    }

    /// Asks while the test goes on listening.
    pub(crate) fn ask_in_background(
        &self,
        subject: String,
        body: Vec<u8>,
    ) -> futures::future::BoxFuture<'static, Option<Message>> {
        let bus = self.bus.clone();
        let (sender, answer) = tokio::sync::oneshot::channel();
        self.asking.lock().unwrap().spawn(async move {
            let request = Request::new().payload(body.into()).timeout(Some(TIMEOUT));
            sender.send(bus.send_request(subject, request).await.unwrap()).ok();
        });
        Box::pin(async move { answer.await.ok() })
    }

    /// The next event of any instance: its number, and whether it is acknowledged is the caller's choice.
    pub(crate) async fn event(&mut self, acknowledge: bool) -> (u64, InstanceId, AgentEvent) {
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.heard.next()).await.expect("an event").unwrap();
            let Some((_, FromAgent::Event(instance))) = FromAgent::parse(&message.subject) else { continue };
            let sequence = message.headers.as_ref().unwrap().get(report::SEQUENCE).unwrap().as_str().parse().unwrap();
            if acknowledge {
                let ack = serde_json::to_vec(&EventAck { sequence }).unwrap();
                self.bus.publish(message.reply.unwrap(), ack.into()).await.unwrap();
            }
            return (sequence, instance, serde_json::from_slice(&message.payload).unwrap());
        }
    }

    /// The next message of log lines of any instance, which is taken.
    pub(crate) async fn logs(&mut self) -> Logs {
        self.lines(true).await.1
    }

    /// The next message of log lines of any instance, and its number. Whether it is taken is the caller's choice.
    pub(crate) async fn lines(&mut self, take: bool) -> (u64, Logs) {
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.heard.next()).await.expect("log lines").unwrap();
            if let Some((_, FromAgent::Log(_))) = FromAgent::parse(&message.subject) {
                assert!(message.payload.len() <= 512 * 1024, "L1: a message of {} bytes", message.payload.len());
                if take {
                    self.bus.publish(message.reply.unwrap(), "".into()).await.unwrap();
                }
                let sequence = message.headers.as_ref().unwrap().get(report::SEQUENCE).unwrap().as_str().parse().unwrap();
                return (sequence, serde_json::from_slice(&message.payload).unwrap());
            }
        }
    }
}

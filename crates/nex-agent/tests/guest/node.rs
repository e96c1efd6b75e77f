//! The node's side of the bus, played on a real nats-server: answers the handshake, deploys, calls, reads logs and events.

use async_nats::{Client, Subscriber};
use futures::StreamExt as _;
use nex_protocol::agent::{
    Accepted, AgentEvent, Deploy, Handshake, Identity, Limits, Logs, TRIGGER_SUBJECT, agent_subject, parse_host_subject,
};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::WorkloadId;
use nex_protocol::seal::{Environment, seal};
use nex_testkit::NatsServer;
use nkeys::{KeyPair, XKey};

use crate::kit::{HOST, PATIENCE};

/// A node with one agent.
pub(crate) struct Node {
    server: NatsServer,
    bus: Client,
    heard: Subscriber,
    agent: WorkloadId,
    key: XKey,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let server = NatsServer::start().await;
        let bus = server.client().await;
        let heard = bus.subscribe("hostint.>").await.unwrap();
        bus.flush().await.unwrap();
        Self { server, bus, heard, agent: WorkloadId::new(1), key: XKey::new() }
    }

    /// What the agent is to be, seen from a guest.
    pub(crate) fn identity(&self) -> String {
        let seed = KeyPair::new_user().seed().unwrap();
        let bus = format!("nats://{HOST}:{}", self.server.port());
        let identity = Identity { agent: self.agent.clone(), bus, jwt: "not checked here".to_owned(), seed };
        serde_json::to_string(&identity).unwrap()
    }

    pub(crate) async fn handshake(&mut self) -> Handshake {
        let message = tokio::time::timeout(PATIENCE, self.heard.next()).await.expect("an agent shakes hands").unwrap();
        assert_eq!(parse_host_subject(&message.subject), Some((self.agent.clone(), "handshake")));
        let accepted = serde_json::to_vec(&Accepted { accepted: true, ..Accepted::default() }).unwrap();
        self.bus.publish(message.reply.unwrap(), accepted.into()).await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }

    pub(crate) async fn deploy(&self, to: &Handshake, kind: WorkloadType, artifact: &str, bytes: &[u8]) -> Accepted {
        let deploy = Deploy {
            namespace: "default".parse().unwrap(),
            name: "echo".parse().unwrap(),
            r#type: kind,
            artifact: artifact.to_owned(),
            digest: Digest::of(bytes),
            precompiled: None,
            argv: Vec::new(),
            environment: seal(&Environment::new(), &self.key, &to.xkey).unwrap(),
            sealed_by: self.key.public_key(),
            limits: Limits { call_timeout_ms: 20_000, memory_bytes: 32 << 20, concurrency: 2, reply_bytes: 1 << 20 },
            triggers: None,
        };
        let limits = Limits { memory_bytes: if kind == WorkloadType::Native { 0 } else { 32 << 20 }, ..deploy.limits };
        let body = serde_json::to_vec(&Deploy { limits, ..deploy }).unwrap();
        let answer = self.ask("deploy", async_nats::HeaderMap::new(), body).await;
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Calls the function as a node does that relays a trigger.
    pub(crate) async fn call(&self, payload: &str) -> String {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(TRIGGER_SUBJECT, "calls.me");
        let answer = self.ask("trigger", headers, payload.into()).await;
        String::from_utf8_lossy(&answer.payload).into_owned()
    }

    async fn ask(&self, what: &str, headers: async_nats::HeaderMap, body: Vec<u8>) -> async_nats::Message {
        let request = async_nats::Request::new().headers(headers).payload(body.into()).timeout(Some(PATIENCE));
        self.bus.send_request(agent_subject(&self.agent, what), request).await.unwrap()
    }

    /// Whether the agent still answers.
    pub(crate) async fn ping(&self) -> bool {
        self.ask("ping", async_nats::HeaderMap::new(), Vec::new()).await.payload == "OK"
    }

    /// The lines of a service, until it ends.
    pub(crate) async fn lines(&mut self) -> (Vec<String>, i32, String) {
        let mut lines = Vec::new();
        loop {
            let message = tokio::time::timeout(PATIENCE, self.heard.next()).await;
            let message = message.unwrap_or_else(|_late| panic!("the service does not end; it said {lines:#?}")).unwrap();
            match parse_host_subject(&message.subject) {
                Some((_, "logs")) => {
                    let logs: Logs = serde_json::from_slice(&message.payload).unwrap();
                    lines.extend(logs.lines.into_iter().map(|line| line.text));
                }
                Some((_, "events")) => match serde_json::from_slice(&message.payload).unwrap() {
                    AgentEvent::Exited { code, message } => return (lines, code, message),
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
    }
}

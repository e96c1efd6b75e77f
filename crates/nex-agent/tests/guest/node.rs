//! The node's side of the bus, on a real nats-server: answers the handshake, deploys, calls, reads logs and events.

use async_nats::{Client, Subscriber};
use futures::StreamExt as _;
use nex_protocol::agent::subject::{self, FromAgent};
use nex_protocol::agent::{
    AgentEvent, Answer, Deploy, EventAck, Handshake, Identity, Invocation, Limits, Logs, TriggerKind, Welcome, report,
};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::{AgentId, InstanceId};
use nex_protocol::seal::{Environment, seal};
use nex_testkit::{NatsOptions, NatsServer};
use nkeys::{KeyPair, XKey};

use crate::fixture::{HOST, TIMEOUT};

/// A node with one agent.
pub(crate) struct Node {
    server: NatsServer,
    bus: Client,
    messages: Subscriber,
    agent: AgentId,
    instance: InstanceId,
    key: XKey,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let certified = vec![HOST.to_owned(), "127.0.0.1".to_owned()];
        let server = NatsServer::start_with(NatsOptions { certified, ..NatsOptions::default() }).await;
        let bus = server.client().await;
        let messages = bus.subscribe("hostint.>").await.unwrap();
        bus.flush().await.unwrap();
        Self { server, bus, messages, agent: AgentId::new(1), instance: InstanceId::new(2), key: XKey::new() }
    }

    /// The agent's identity, as its guest reaches the bus.
    pub(crate) fn identity(&self) -> String {
        let seed = KeyPair::new_user().seed().unwrap();
        let bus = format!("nats://{HOST}:{}", self.server.port());
        let (certificate, jwt) = (self.server.certificate(), "not checked here".to_owned());
        let identity = Identity { agent: self.agent.clone(), bus, certificate, jwt, seed };
        serde_json::to_string(&identity).unwrap()
    }

    pub(crate) async fn handshake(&mut self) -> Handshake {
        let message = tokio::time::timeout(TIMEOUT, self.messages.next()).await.expect("an agent shakes hands").unwrap();
        assert_eq!(FromAgent::parse(&message.subject), Some((self.agent.clone(), FromAgent::Handshake)));
        let accepted = serde_json::to_vec(&Welcome { accepted: true, message: String::new() }).unwrap();
        self.bus.publish(message.reply.unwrap(), accepted.into()).await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }

    pub(crate) async fn deploy(&self, to: &Handshake, kind: WorkloadType, artifact: &str, bytes: &[u8]) -> Answer {
        let deploy = Deploy {
            namespace: "default".parse().unwrap(),
            name: "echo".parse().unwrap(),
            r#type: kind,
            artifact: artifact.to_owned(),
            digest: Digest::of(bytes),
            is_typescript: false,
            is_shared: false,
            precompiled: None,
            argv: Vec::new(),
            environment: seal(&Environment::new(), &self.key, &to.xkey).unwrap(),
            sealed_by: self.key.public_key(),
            limits: Limits {
                call_timeout_ms: 20_000,
                memory_bytes: 32 << 20,
                concurrency: 2,
                reply_bytes: 1 << 20,
                ..Limits::default()
            },
            triggers: None,
            health: None,
        };
        let limits = Limits { memory_bytes: if kind == WorkloadType::Native { 0 } else { 32 << 20 }, ..deploy.limits };
        let body = serde_json::to_vec(&Deploy { limits, ..deploy }).unwrap();
        let answer = self.request(subject::deploy(&self.agent, &self.instance), async_nats::HeaderMap::new(), body).await;
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Calls the function as a node does that relays a trigger.
    pub(crate) async fn call(&self, payload: &str) -> String {
        let invocation = Invocation {
            trigger: TriggerKind::Subject,
            subject: "calls.me".into(),
            deadline_ms: 20_000,
            attempt: 1,
            host_calls: nex_protocol::agent::HostCalls::Live,
        };
        let headers = nex_bus::invocation::headers(&invocation, None);
        let answer = self.request(subject::invoke(&self.agent, &self.instance), headers, payload.into()).await;
        String::from_utf8_lossy(&answer.payload).into_owned()
    }

    async fn request(&self, subject: String, headers: async_nats::HeaderMap, body: Vec<u8>) -> async_nats::Message {
        let request = async_nats::Request::new().headers(headers).payload(body.into()).timeout(Some(TIMEOUT));
        self.bus.send_request(subject, request).await.unwrap()
    }

    /// Whether the agent still answers.
    pub(crate) async fn ping(&self) -> bool {
        serde_json::from_slice::<nex_protocol::agent::Pong>(
            &self.request(subject::ping(&self.agent), async_nats::HeaderMap::new(), Vec::new()).await.payload,
        )
        .is_ok()
    }

    /// The lines of a service, until it ends.
    pub(crate) async fn lines(&mut self) -> (Vec<String>, i32, String) {
        let mut lines = Vec::new();
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.messages.next()).await;
            let message = message.unwrap_or_else(|_late| panic!("the service does not end; it said {lines:#?}")).unwrap();
            match FromAgent::parse(&message.subject) {
                Some((_, FromAgent::Log(_))) => {
                    self.bus.publish(message.reply.clone().unwrap(), "".into()).await.unwrap();
                    let logs: Logs = serde_json::from_slice(&message.payload).unwrap();
                    lines.extend(logs.lines.into_iter().map(|line| line.text));
                }
                Some((_, FromAgent::Event(_))) => {
                    let sequence = message.headers.as_ref().unwrap().get(report::SEQUENCE).unwrap().as_str().parse().unwrap();
                    let ack = serde_json::to_vec(&EventAck { sequence }).unwrap();
                    self.bus.publish(message.reply.clone().unwrap(), ack.into()).await.unwrap();
                    match serde_json::from_slice(&message.payload).unwrap() {
                        AgentEvent::Exited { code, message } => return (lines, code, message),
                        other @ (AgentEvent::Calls { .. }
                        | AgentEvent::Health { .. }
                        | AgentEvent::Stuck { .. }
                        | AgentEvent::Stopped) => {
                            panic!("{other:?}")
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

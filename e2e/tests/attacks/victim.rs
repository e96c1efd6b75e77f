//! A node under attack: what is sent to it by hand, and how one sees that it goes on.

use std::time::Duration;

use async_nats::Client;
use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::{ConnectionDetails, DeployRequest};
use nex_protocol::digest::Digest;
use nex_protocol::seal::{Environment, seal};
use nex_testkit::guest;
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};

use crate::running::Running;
use crate::world::World;

/// A world with a NATS server, a node on it, and the artifact `greetmjs` in the bucket.
pub(crate) struct Victim {
    pub(crate) running: Option<Running>,
    pub(crate) node: String,
    pub(crate) client: Client,
    pub(crate) world: World,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With these members in its configuration.
    pub(crate) fn with(config: &Value) -> Self {
        let mut config = config.clone();
        for (key, value) in [("sandbox", json!("process")), ("workload_types", json!(["native", "v8", "wasm"]))] {
            config.as_object_mut().unwrap().entry(key).or_insert(value);
        }
        let world = World::with_nats();
        let file = world.file("node.json", config.to_string());
        let running = world.node_up(&["--config", &file]);
        let (node, client) = (world.node_id(), world.client());
        let script = world.file("greet.mjs", guest::GREET_MJS);
        world.nex(&["devrun", &script, "--trigger_subject", "fn.greet"]).expect(0);
        Self { running: Some(running), node, client, world }
    }

    /// Publishes a question whose answer is to go to a subject of the attacker's choice.
    pub(crate) fn ask_with_reply(&self, subject: &str, reply: &str, body: &str) {
        let (subject, reply, body) = (subject.to_owned(), reply.to_owned(), body.to_owned().into());
        self.world.block_on(async {
            self.client.publish_with_reply(subject, reply, body).await.unwrap();
            self.client.flush().await.unwrap();
        });
    }

    /// Asks and waits for one answer.
    pub(crate) fn ask(&self, subject: &str, body: &str) -> Value {
        let request = async_nats::Request::new().payload(body.to_owned().into()).timeout(Some(Duration::from_secs(20)));
        let reply = self.world.block_on(self.client.send_request(subject.to_owned(), request)).unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    /// What the node says of itself; that it answers shows that all that came before was taken in.
    pub(crate) fn summary(&self) -> Value {
        self.ask(&format!("$NEX.PING.{}", self.node), "")["data"].clone()
    }

    pub(crate) fn deploy(&self, namespace: &str, request: &DeployRequest) -> Value {
        self.ask(&format!("$NEX.DEPLOY.{namespace}.{}", self.node), &serde_json::to_string(request).unwrap())
    }

    /// What a client of 0.2.7 would send: claims that bind nothing, and an environment that is anybody's.
    pub(crate) fn old_request(&self, issuer: &KeyPair, trigger: &str) -> DeployRequest {
        let claims =
            Claims { exp: None, ..Claims::to_start("greetmjs", issuer, &Digest::of(guest::GREET_MJS.as_bytes()), now(), 60) };
        let sender = XKey::new();
        let xkey = self.summary()["target_xkey"].as_str().unwrap().to_owned();
        DeployRequest {
            r#type: Some("v8".into()),
            location: Some(self.world.artifact("greetmjs").parse().unwrap()),
            workload_jwt: Some(sign(&claims, issuer).unwrap()),
            environment: Some(seal(&Environment::new(), &sender, &xkey).unwrap()),
            sender_public_key: Some(sender.public_key()),
            trigger_subjects: Some(vec![trigger.to_owned()]),
            ..DeployRequest::default()
        }
    }

    /// The same, with connections of its own.
    pub(crate) fn connected(&self, url: &str) -> DeployRequest {
        let details = ConnectionDetails { nats_url: url.to_owned(), ..ConnectionDetails::default() };
        DeployRequest { trigger_connection: Some(details), ..self.old_request(&KeyPair::new_account(), "fn.elsewhere") }
    }

    /// Ends the node in order.
    pub(crate) fn stop(mut self) {
        self.running.take().unwrap().interrupt().expect(0);
    }
}

/// Fails the test unless an answer is a refusal with this text.
#[track_caller]
pub(crate) fn is_refused(answer: &Value, text: &str) {
    let error = answer["error"].as_str().unwrap_or_else(|| panic!("it was not refused: {answer}"));
    assert!(error.contains(text), "'{text}' in {answer}");
}

pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

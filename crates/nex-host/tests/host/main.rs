//! The host services against a real nats-server, and against a small HTTP server.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that finds less than it needs has failed")]

mod http;
mod kv;
mod messaging;
mod object;
mod respond;

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use nex_bus::denials::Denials;
use nex_host::{CallContext, Config, HostServices};
use nex_protocol::host::{HostError, TARGET, WITH};
use nex_testkit::NatsServer;
use serde_json::Value;

/// One workload and the services it calls.
struct Caller {
    host: HostServices,
    context: CallContext,
}

impl Caller {
    fn new(nats: Client, config: Config) -> Self {
        Self { host: HostServices::new(config), context: context(nats, "default", "echo") }
    }

    async fn of(server: &NatsServer) -> Self {
        Self::new(server.client().await, Config::default())
    }

    async fn call(&self, what: &str, target: &str, body: impl AsRef<[u8]>) -> Result<Bytes, HostError> {
        self.call_as(&self.context, what, target, body).await
    }

    async fn call_as(&self, context: &CallContext, what: &str, target: &str, body: impl AsRef<[u8]>) -> Result<Bytes, HostError> {
        self.host.call(context, what, &message(target, body.as_ref())).await
    }

    /// The JSON of an answer.
    async fn json(&self, what: &str, target: &str, body: impl AsRef<[u8]>) -> Value {
        serde_json::from_slice(&self.call(what, target, body).await.unwrap()).unwrap()
    }

    /// A call with headers for what is sent.
    async fn with(&self, what: &str, target: &str, body: &str, headers: &[&str]) -> Result<Bytes, HostError> {
        let mut message = message(target, body.as_bytes());
        let set = message.headers.get_or_insert_default();
        headers.iter().for_each(|line| set.append(WITH, *line));
        self.host.call(&self.context, what, &message).await
    }

    /// Code and text of a refusal.
    async fn refused(&self, what: &str, target: &str, body: impl AsRef<[u8]>) -> (u16, String) {
        let error = self.call(what, target, body).await.unwrap_err();
        (error.code, error.message)
    }
}

fn context(nats: Client, namespace: &str, workload: &str) -> CallContext {
    CallContext {
        namespace: namespace.parse().unwrap(),
        workload: workload.parse().unwrap(),
        nats,
        denials: Denials::default(),
        is_narrow: false,
    }
}

fn config(service: &str, enabled: bool, config: Value) -> Config {
    Config::new([(service.to_owned(), enabled, config)]).unwrap()
}

/// Returns when the server has done all that was sent to it on this connection; `flush` only returns when it is sent.
async fn settled(nats: &Client) {
    let inbox = nats.new_inbox();
    let mut echo = nats.subscribe(inbox.clone()).await.unwrap();
    nats.publish(inbox, Bytes::new()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), echo.next()).await.unwrap().unwrap();
}

fn message(target: &str, body: &[u8]) -> Message {
    let mut headers = HeaderMap::new();
    if !target.is_empty() {
        headers.insert(TARGET, target);
    }
    Message {
        subject: "hostint.agent.host".into(),
        reply: None,
        payload: Bytes::copy_from_slice(body),
        headers: Some(headers),
        status: None,
        description: None,
        length: body.len(),
    }
}

#[tokio::test]
async fn what_is_not_there_or_switched_off_is_told_so() {
    let server = NatsServer::start().await;
    let caller = Caller::new(server.client().await, config("messaging", false, Value::Null));
    let refusal = |what: &'static str| caller.refused(what, "x", "");
    assert_eq!(refusal("kv").await, (400, "'kv' is not <service>.<method>".to_owned()));
    assert_eq!(refusal("sql.get").await, (404, "no such host service: sql".to_owned()));
    for what in ["kv.incr", "objectstore.copy", "http.trace"] {
        assert_eq!(refusal(what).await.0, 400, "{what}");
    }
    let (code, text) = refusal("messaging.publish").await;
    assert!(code == 403 && text.contains("host_services.services.messaging.enabled"), "{text}");
    assert_eq!(caller.refused("http.get", &"x".repeat(9000), "").await.0, 400);
}

//! `wasi:messaging`: components that handle messages, reply, publish and ask.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{call, fixture};
use futures::future::BoxFuture;
use nex_engine::{CallError, Function, HostClient, Reply};
use nex_engine_wasm::{Engine, EngineConfig};
use nex_protocol::host::{HostError, HostRequest, Service};
use nex_testkit::guest::component;

const GUEST: &str = include_str!("guests/messages.wat");
const MESSAGING: &str = include_str!("../wit/wasi-messaging/messaging.wit");
const WORLD: &str = "package nex:test;
world guest {
  import wasi:messaging/types@0.2.0-draft;
  import wasi:messaging/producer@0.2.0-draft;
  import wasi:messaging/request-reply@0.2.0-draft;
  export wasi:messaging/incoming-handler@0.2.0-draft;
}";

/// Others, who answer what they are asked.
#[derive(Default)]
struct Others(Mutex<Vec<HostRequest>>);

impl HostClient for Others {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        assert_eq!(request.service, Service::Messaging);
        let answer = [b"heard ", &request.body[..]].concat();
        self.0.lock().unwrap().push(request);
        Box::pin(async move { Ok(answer.into()) })
    }
}

#[tokio::test]
async fn a_component_handles_messages_replies_publishes_and_asks() {
    let (mut fixture, others) = (fixture(&component(GUEST, &[MESSAGING], WORLD)), Arc::new(Others::default()));
    fixture.launch.host = Arc::clone(&others) as _;
    let engine = Engine::new(EngineConfig { instances: 8 });
    let function = engine.start(fixture.launch.clone()).await.unwrap().function;
    let headers = vec![("x-mine".to_owned(), "refused".to_owned())];
    let echoed = Reply { payload: "echo".into(), headers: headers.clone() };
    assert_eq!(function.invoke(call("echo")).await, Ok(echoed));
    assert_eq!(function.invoke(call("twice")).await.unwrap().payload, "twice", "the second reply is refused");
    assert_eq!(function.invoke(call("nothing")).await, Ok("".into()));
    assert_eq!(function.invoke(call("fail")).await, Err(CallError::Failed("refused".into())));
    let kept = function.invoke(call("keep")).await.unwrap_err();
    assert!(kept.to_string().contains("too many messages are held"), "{kept}");
    assert_eq!(function.invoke(call("request")).await, Ok("heard request".into()));
    assert_eq!(function.invoke(call("send")).await, Ok("".into()));
    let asked = others.0.lock().unwrap();
    let seen: Vec<_> = asked.iter().map(|one| (one.method.as_str(), one.target.as_str(), &one.body[..])).collect();
    assert_eq!(seen, [("request", "other.subject", &b"request"[..]), ("publish", "other.subject", &b"send"[..])]);
    assert!(asked.iter().all(|one| one.headers == headers), "{asked:?}");
}

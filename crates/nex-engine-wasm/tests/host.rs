//! Host services as guests have them: by the interfaces of WASI's drafts and of wasmCloud, and by the import module of core modules.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Fixture, call, component, fixture, module};
use futures::future::BoxFuture;
use nex_engine::{CallError, Function, HostClient, StartError, Stream};
use nex_engine_wasm::{Engine, EngineConfig, WasmFunction};
use nex_protocol::host::{HostError, HostRequest, REVISION, Service};
use nex_testkit::guest;

const HANDLER: &str = include_str!("guests/handler.wat");
const NEX: &str = include_str!("guests/nex.wat");
const WORLD: &str = "package nex:test;
world guest {
  import wasi:keyvalue/store@0.2.0-draft2;
  import wasi:keyvalue/atomics@0.2.0-draft2;
  import wasi:config/store@0.2.0-rc.1;
  import wasi:logging/logging@0.1.0-draft;
  import wasmcloud:messaging/consumer@0.2.0;
  export wasmcloud:messaging/handler@0.2.0;
}";

/// A node in memory.
#[derive(Default)]
struct Node {
    values: Mutex<BTreeMap<String, (u64, Bytes)>>,
    sent: Mutex<Vec<(String, Bytes)>>,
}

fn refuse(code: u16) -> HostError {
    HostError { code, message: "no".into() }
}

impl Node {
    fn kv(&self, request: &HostRequest) -> Result<Bytes, HostError> {
        let mut values = self.values.lock().unwrap();
        let (revision, value) = values.get(&request.target).cloned().unwrap_or_default();
        let next = revision + 1;
        match request.method.as_str() {
            "get" if revision == 0 => Err(refuse(404)),
            "get" => Ok(value),
            "entry" => Ok([&revision.to_be_bytes()[..], &value].concat().into()),
            "set" => {
                values.insert(request.target.clone(), (next, request.body.clone()));
                Ok(Bytes::new())
            }
            "update" => {
                let given = request.headers.iter().find(|(name, _)| name == REVISION).map(|(_, value)| value.parse());
                if given != Some(Ok(revision)) {
                    return Err(refuse(409));
                }
                values.insert(request.target.clone(), (next, request.body.clone()));
                Ok(Bytes::new())
            }
            "increment" => {
                let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<i64>().unwrap_or(0);
                let sum = Bytes::from((number(&value) + number(&request.body)).to_string());
                values.insert(request.target.clone(), (next, sum.clone()));
                Ok(sum)
            }
            other => panic!("{other}"),
        }
    }
}

impl HostClient for Node {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        let answer = match (request.service, request.method.as_str()) {
            (Service::KeyValue, _) => self.kv(&request),
            (Service::Messaging, "publish") => {
                self.sent.lock().unwrap().push((request.target, request.body));
                Ok(Bytes::new())
            }
            (Service::Messaging, "request") => Ok([b"answer to ", &request.body[..]].concat().into()),
            (service, method) => panic!("{service}.{method}"),
        };
        Box::pin(async move { answer })
    }
}

/// The core module as a component of the world above.
fn handler() -> Vec<u8> {
    let packages = [
        include_str!("../wit/keyvalue-draft2/keyvalue.wit"),
        include_str!("../wit/config-rc1/config.wit"),
        include_str!("../wit/logging/logging.wit"),
        include_str!("../wit/messaging/messaging.wit"),
    ];
    guest::component(HANDLER, &packages, WORLD)
}

async fn start(artifact: &[u8], change: impl FnOnce(&mut Fixture)) -> (WasmFunction, Arc<Node>, Fixture) {
    let (mut fixture, node) = (fixture(artifact), Arc::new(Node::default()));
    fixture.launch.host = Arc::clone(&node) as _;
    change(&mut fixture);
    let engine = Engine::new(EngineConfig { instances: 8 });
    (engine.start(fixture.launch.clone()).await.unwrap().function, node, fixture)
}

async fn reply(function: &WasmFunction, payload: &str) -> Bytes {
    let payload = payload.to_owned();
    function.invoke(call(payload.clone())).await.unwrap_or_else(|error| panic!("{payload}: {error}")).payload
}

#[tokio::test]
async fn a_component_handles_messages_and_has_its_bucket() {
    let (function, node, _fixture) = start(&handler(), |_| ()).await;
    assert_eq!(reply(&function, "g").await, "none");
    assert_eq!(reply(&function, "shello").await, &[0][..]);
    assert_eq!(reply(&function, "g").await, "hello");
    assert_eq!(reply(&function, "i").await, &5_i64.to_le_bytes()[..]);
    assert_eq!(reply(&function, "i").await, &10_i64.to_le_bytes()[..]);
    assert_eq!(reply(&function, "w").await, &[0, 1, 1][..], "the second swap failed, with what is there now");
    assert_eq!(reply(&function, "g").await, "here");
    assert_eq!(reply(&function, "o").await, &[1][..], "there is no other bucket");
    assert_eq!(node.values.lock().unwrap()["number"].1, "10");
}

#[tokio::test]
async fn a_component_publishes_asks_logs_and_reads_its_configuration() {
    let (function, node, mut fixture) = start(&handler(), |_| ()).await;
    assert_eq!(reply(&function, "c").await, "väl");
    assert_eq!(reply(&function, "pub").await, &[0][..]);
    assert_eq!(*node.sent.lock().unwrap(), [("other.subject".to_owned(), Bytes::from("pub"))]);
    assert_eq!(reply(&function, "r?").await, "answer to r?");
    assert_eq!(reply(&function, "log this").await, "none");
    let line = fixture.lines.try_recv().unwrap();
    assert_eq!((line.stream, line.text.as_str()), (Stream::Stderr, "here: log this"));
    assert_eq!(reply(&function, "n").await, "");
}

#[tokio::test]
async fn a_handler_that_refuses_or_floods_is_told_so_and_the_next_message_is_handled() {
    let (function, _node, _fixture) = start(&handler(), |fixture| fixture.launch.limits.host_calls = Some(50)).await;
    assert_eq!(function.invoke(call("e")).await, Err(CallError::Failed("refused".into())));
    assert_eq!(function.invoke(call("f")).await, Err(CallError::TooManyHostCalls(50)));
    assert_eq!(reply(&function, "g").await, "none");
}

#[tokio::test]
async fn a_core_module_calls_host_services_by_the_import_module() {
    let (function, node, _fixture) = start(&module(NEX), |_| ()).await;
    assert_eq!(reply(&function, "a").await, &b"\x65no"[..], "404 / 4");
    node.values.lock().unwrap().insert("a".into(), (1, "value".into()));
    assert_eq!(reply(&function, "a").await, &b"\x32value"[..], "200 / 4");
}

#[tokio::test]
async fn what_a_core_module_gives_that_is_not_its_own_ends_it() {
    for (what, expected) in [
        ("(i32.const 60000) (i32.const 10000)", "not in memory"),
        ("(i32.const -1) (i32.const 1)", "not in memory"),
        ("(i32.const 0) (i32.const 9000)", "too long"),
    ] {
        let text = format!(
            "(module (import \"nex\" \"call\" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
               (memory (export \"memory\") 1)
               (func (export \"_start\") (drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) {what}
                 (i32.const 0) (i32.const 0)))))"
        );
        let (function, _node, _fixture) = start(&module(&text), |_| ()).await;
        let failed = function.invoke(call("")).await.unwrap_err().to_string();
        assert!(failed.contains(expected), "{what}: {failed}");
    }
    let subject = "(module (import \"nex\" \"call\" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
        (memory (export \"memory\") 1) (data (i32.const 0) \"kv\") (data (i32.const 8) \"get.>\")
        (func (export \"_start\") (call $exit (i32.sub (call $call (i32.const 0) (i32.const 2) (i32.const 8) (i32.const 5)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 404)))))";
    let (function, _node, _fixture) = start(&module(subject), |_| ()).await;
    assert_eq!(reply(&function, "").await, "", "a method is no part of a subject");
}

#[tokio::test]
async fn a_component_of_another_world_is_refused_with_what_there_is() {
    let text = "(component (import \"wasi:other/thing@0.1.0\" (instance (export \"f\" (func)))))";
    let error = Engine::default().start(fixture(&module(text)).launch).await.map(|_started| ()).unwrap_err();
    assert!(matches!(error, StartError::Invalid(_)));
    assert!(error.to_string().contains("wasmcloud:messaging"), "{error}");
    let _commands_go_on = component(common::ECHO);
}

//! `wasi:blobstore`: a component's one container is the workload's own object bucket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{call, fixture};
use futures::future::BoxFuture;
use nex_engine::{Function, HostClient};
use nex_engine_wasm::{Engine, EngineConfig, WasmFunction};
use nex_protocol::host::{HostError, HostRequest, Service};
use nex_testkit::guest::{IO_WIT, component};

const GUEST: &str = include_str!("guests/blobs.wat");
const BLOBSTORE: &str = include_str!("../wit/blobstore/blobstore.wit");
const MESSAGING: &str = include_str!("../wit/messaging/messaging.wit");
const WORLD: &str = "package nex:test;
world guest {
  import wasi:io/streams@0.2.0;
  import wasi:blobstore/blobstore@0.2.0-draft;
  import wasi:blobstore/container@0.2.0-draft;
  import wasmcloud:messaging/consumer@0.2.0;
  export wasmcloud:messaging/handler@0.2.0;
}";

/// A bucket in memory.
#[derive(Default)]
struct Bucket(Mutex<BTreeMap<String, Bytes>>);

impl HostClient for Bucket {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        assert_eq!(request.service, Service::ObjectStore);
        let mut objects = self.0.lock().unwrap();
        let absent = || HostError { code: 404, message: "there is no such object".into() };
        let HostRequest { method, target, body, .. } = request;
        let answer = match method.as_str() {
            "get" => objects.get(&target).cloned().ok_or_else(absent),
            "info" => objects.get(&target).map(|object| format!("{{\"size\":{}}}", object.len()).into()).ok_or_else(absent),
            "delete" => objects.remove(&target).map(|_removed| Bytes::new()).ok_or_else(absent),
            "put" => {
                objects.insert(target, body);
                Ok(Bytes::new())
            }
            "list" => {
                let names: Vec<_> = objects.keys().map(|name| serde_json::json!({ "name": name })).collect();
                Ok(serde_json::to_vec(&names).unwrap().into())
            }
            other => panic!("{other}"),
        };
        Box::pin(async move { answer })
    }
}

async fn reply(function: &WasmFunction, payload: &str) -> Bytes {
    let payload = payload.to_owned();
    function.invoke(call(payload.clone())).await.unwrap_or_else(|error| panic!("{payload}: {error}")).payload
}

#[tokio::test]
async fn a_component_keeps_objects_in_its_container() {
    let (mut fixture, bucket) = (fixture(&component(GUEST, &[IO_WIT, BLOBSTORE, MESSAGING], WORLD)), Arc::new(Bucket::default()));
    fixture.launch.host = Arc::clone(&bucket) as _;
    let engine = Engine::new(EngineConfig { instances: 8 });
    let function = engine.start(fixture.launch.clone()).await.unwrap().function;
    let [worked, failed] = [&[0][..], &[1][..]];
    assert_eq!(reply(&function, "h").await, worked, "there is none");
    assert_eq!(reply(&function, "r").await, failed);
    assert_eq!(reply(&function, "whello").await, worked);
    assert_eq!(bucket.0.lock().unwrap()["thing"], "hello");
    assert_eq!(reply(&function, "r").await, "ell", "the last byte is meant as well");
    assert_eq!(reply(&function, "h").await, failed, "it is there");
    assert_eq!(reply(&function, "l").await, "thing");
    assert_eq!(reply(&function, "xgiven up").await, worked);
    assert_eq!(bucket.0.lock().unwrap()["thing"], "hello", "what was not finished is not stored");
    let part = format!("f{}", "x".repeat(4000));
    assert_eq!(reply(&function, &part).await, failed, "an object has an end");
    assert_eq!(reply(&function, "d").await, worked);
    assert_eq!(reply(&function, "d").await, worked, "what is gone is deleted");
    assert!(bucket.0.lock().unwrap().is_empty());
    assert_eq!(reply(&function, "o").await, failed, "there is no other container");
}

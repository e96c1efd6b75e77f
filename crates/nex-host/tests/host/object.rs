//! `objectstore`

use nex_testkit::NatsServer;
use serde_json::json;

use crate::{Caller, config, context};

#[tokio::test]
async fn an_object_is_put_read_listed_and_deleted() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    // More than one piece, not a multiple of a piece.
    let body: Vec<u8> = (0..200_001_u32).map(|n| n.to_le_bytes()[0]).collect();
    let name = "reports/2024 Ü.pdf";

    assert_eq!(caller.json("objectstore.list", "", "").await, json!([]));
    let info = caller.json("objectstore.put", name, &body).await;
    assert_eq!((&info["name"], &info["size"], &info["chunks"]), (&json!(name), &json!(200_001), &json!(2)));
    assert_eq!(info["bucket"], "hs_default_echo_obj");
    assert!(info["digest"].as_str().unwrap().starts_with("SHA-256="), "{info}");
    caller.call("objectstore.put", "empty", "").await.unwrap();
    assert_eq!(caller.call("objectstore.get", name, "").await.unwrap(), body);
    assert_eq!(caller.call("objectstore.get", "empty", "").await.unwrap(), "");

    assert_eq!(caller.json("objectstore.info", name, "").await["size"], 200_001);
    assert_eq!(caller.refused("objectstore.info", "never", "").await.0, 404);
    let list = caller.json("objectstore.list", "", "").await;
    let names: Vec<_> = list.as_array().unwrap().iter().map(|info| info["name"].as_str().unwrap()).collect();
    assert_eq!(names, [name, "empty"]);

    assert_eq!(caller.json("objectstore.delete", name, "").await, json!({"success": true}));
    assert_eq!(caller.json("objectstore.delete", "empty", "").await, json!({"success": true}));
    assert_eq!(caller.json("objectstore.list", "", "").await, json!([]));
    assert_eq!(caller.refused("objectstore.info", name, "").await.0, 404);
    let (code, text) = caller.refused("objectstore.get", name, "").await;
    assert!(code == 404 && text.contains("there is no such object"), "{text}");
    assert_eq!(caller.refused("objectstore.delete", "never", "").await.0, 404);
    assert_eq!(caller.refused("objectstore.get", "", "").await, (400, "name is required".to_owned()));
}

#[tokio::test]
async fn two_workloads_have_two_buckets() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let other = context(server.client().await, "default", "other");
    caller.call("objectstore.put", "mine", "1").await.unwrap();
    assert_eq!(caller.call_as(&other, "objectstore.get", "mine", "").await.unwrap_err().code, 404);
    assert_eq!(caller.call_as(&other, "objectstore.list", "", "").await.unwrap(), "[]");
}

#[tokio::test]
async fn an_object_that_does_not_fit_leaves_no_pieces_behind() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let (code, text) = caller.refused("objectstore.put", "big", vec![0; 600_000]).await;
    assert!(code == 507 && text.contains("at most 524288"), "{text}");
    caller.call("objectstore.put", "small", vec![0; 300_000]).await.unwrap();
    assert_eq!(caller.refused("objectstore.put", "second", vec![0; 300_000]).await.0, 507);
    caller.call("objectstore.delete", "small", "").await.unwrap();
    caller.call("objectstore.put", "second", vec![0; 300_000]).await.unwrap();
}

#[tokio::test]
async fn an_object_larger_than_a_message_is_kept_and_one_too_large_for_a_function_is_refused() {
    let server = NatsServer::start().await;
    let nats = server.client().await;
    let caller = Caller::new(nats.clone(), config("objectstore", true, json!({"max_bytes": -1})));
    let body = vec![7; 3 * 1024 * 1024];
    caller.call("objectstore.put", "large", &body).await.unwrap();
    assert_eq!(caller.call("objectstore.get", "large", "").await.unwrap(), body);

    let store = async_nats::jetstream::new(nats).get_object_store("hs_default_echo_obj").await.unwrap();
    let huge = vec![0; 8 * 1024 * 1024];
    store.put("huge", &mut huge.as_slice()).await.unwrap();
    let (code, text) = caller.refused("objectstore.get", "huge", "").await;
    assert!(code == 413 && text.contains("8388608 bytes"), "{text}");
}

//! `kv`

use nex_host::Config;
use nex_testkit::{NatsOptions, NatsServer};
use serde_json::{Value, json};

use crate::{Caller, config, context, settled};

#[tokio::test]
async fn a_value_is_set_read_listed_and_deleted() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let value: Vec<u8> = (0..=255).collect();

    assert_eq!(caller.json("kv.keys", "", "").await, json!([]), "an empty bucket has no keys, and that is no error");
    assert_eq!(caller.json("kv.set", "a.b/c", &value).await, json!({"revision": 1, "success": true}));
    assert_eq!(caller.json("kv.set", "d", "").await, json!({"revision": 2, "success": true}));
    assert_eq!(caller.call("kv.get", "a.b/c", "").await.unwrap(), value);
    assert_eq!(caller.call("kv.get", "d", "").await.unwrap(), "");
    assert_eq!(caller.json("kv.keys", "", "").await, json!(["a.b/c", "d"]));
    assert_eq!(caller.json("kv.delete", "a.b/c", "").await, json!({"success": true}));
    assert_eq!(caller.json("kv.keys", "", "").await, json!(["d"]));

    let gone = "failed to get value for key 'a.b/c': there is no such key".to_owned();
    assert_eq!(caller.refused("kv.get", "a.b/c", "").await, (404, gone));
    assert_eq!(caller.refused("kv.get", "never", "").await.0, 404);
    assert_eq!(caller.refused("kv.get", "", "").await, (400, "key is required".to_owned()));
    assert_eq!(caller.refused("kv.set", "a b", "").await.0, 400);
}

#[tokio::test]
async fn a_value_is_updated_only_at_the_revision_that_was_read() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let entry = |revision: u64, value: &str| [&revision.to_be_bytes()[..], value.as_bytes()].concat();
    assert_eq!(caller.call("kv.entry", "key", "").await.unwrap(), entry(0, ""));
    let at = |revision: &'static str| [revision];
    let created = caller.with("kv.update", "key", "one", &at("revision: 0")).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&created).unwrap(), json!({"revision": 1, "success": true}));
    assert_eq!(caller.with("kv.update", "key", "late", &at("revision: 0")).await.unwrap_err().code, 409);
    assert_eq!(caller.call("kv.entry", "key", "").await.unwrap(), entry(1, "one"));
    caller.with("kv.update", "key", "two", &at("revision: 1")).await.unwrap();
    assert_eq!(caller.with("kv.update", "key", "late", &at("revision: 1")).await.unwrap_err().code, 409);
    assert_eq!(caller.call("kv.get", "key", "").await.unwrap(), "two");
    caller.call("kv.delete", "key", "").await.unwrap();
    assert_eq!(caller.call("kv.entry", "key", "").await.unwrap(), entry(0, ""), "what is deleted is not there");
    caller.with("kv.update", "key", "three", &at("revision: 0")).await.unwrap();
    for headers in [&["revision: x"][..], &["other: 1"], &[]] {
        assert_eq!(caller.with("kv.update", "key", "x", headers).await.unwrap_err().code, 400, "{headers:?}");
    }
}

#[tokio::test]
async fn a_number_is_added_to_by_many_at_once_and_none_is_lost() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let many = futures::future::join_all((0..20).map(|_| caller.call("kv.increment", "number", "3"))).await;
    let mut sums: Vec<i64> =
        many.iter().map(|sum| std::str::from_utf8(sum.as_ref().unwrap()).unwrap().parse().unwrap()).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=20).map(|count| count * 3).collect::<Vec<_>>());
    assert_eq!(caller.call("kv.increment", "number", "-60").await.unwrap(), "0");
    for delta in ["", "1.5", "x", "9223372036854775808"] {
        assert_eq!(caller.refused("kv.increment", "number", delta).await.0, 400, "{delta}");
    }
    caller.call("kv.set", "number", i64::MAX.to_string()).await.unwrap();
    assert_eq!(caller.refused("kv.increment", "number", "1").await.0, 400);
    caller.call("kv.set", "number", "hello").await.unwrap();
    let (code, message) = caller.refused("kv.increment", "number", "1").await;
    assert!(code == 400 && message.contains("is no number"), "{message}");
}

#[tokio::test]
async fn two_workloads_have_two_buckets_even_if_their_names_join_alike() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let nats = server.client().await;
    let [one, two] = [("a", "b_c"), ("a", "other")].map(|(namespace, name)| context(nats.clone(), namespace, name));
    caller.call_as(&one, "kv.set", "key", "of one").await.unwrap();
    assert_eq!(caller.call_as(&two, "kv.get", "key", "").await.unwrap_err().code, 404);
    assert_eq!(caller.call_as(&one, "kv.get", "key", "").await.unwrap(), "of one");

    // `hs_a_b_c_kv` for both.
    let alike = context(nats, "a_b", "c");
    let error = caller.call_as(&alike, "kv.get", "key", "").await.unwrap_err();
    assert!(error.code == 403 && error.message.contains("namespace a, workload b_c"), "on the same connection: {error}");
    let fresh = Caller::new(server.client().await, Config::default());
    let error = fresh.call_as(&alike, "kv.set", "key", "").await.unwrap_err();
    assert_eq!(error.code, 403, "on another node: {error}");
}

#[tokio::test]
async fn a_bucket_made_by_others_is_used_and_one_that_is_missing_is_only_made_if_so_configured() {
    let server = NatsServer::start().await;
    let nats = server.client().await;
    let jetstream = async_nats::jetstream::new(nats.clone());
    let theirs = async_nats::jetstream::kv::Config { bucket: "shared-default".into(), ..Default::default() };
    let store = jetstream.create_key_value(theirs).await.unwrap();
    store.put("greeting", "hello".into()).await.unwrap();

    let settings = json!({"bucket_name": "shared-${NAMESPACE}", "jit_provision": false});
    let caller = Caller::new(nats.clone(), config("kv", true, settings));
    assert_eq!(caller.call("kv.get", "greeting", "").await.unwrap(), "hello");
    let other = context(nats, "other", "echo");
    let error = caller.call_as(&other, "kv.get", "greeting", "").await.unwrap_err();
    assert!(error.code == 404 && error.message.contains("jit_provision"), "{error}");
}

#[tokio::test]
async fn a_handle_is_kept_and_a_bucket_that_vanished_is_made_again() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let nats = server.client().await;
    caller.call("kv.set", "key", "1").await.unwrap();

    let mut lookups = nats.subscribe("$JS.API.STREAM.INFO.>").await.unwrap();
    settled(&nats).await;
    for _ in 0..5 {
        caller.call("kv.get", "key", "").await.unwrap();
        caller.call("kv.set", "key", "2").await.unwrap();
    }
    settled(&nats).await;
    assert!(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut lookups)).is_none(), "no stream is looked up");

    async_nats::jetstream::new(nats).delete_key_value("hs_default_echo_kv").await.unwrap();
    assert!(caller.call("kv.set", "key", "3").await.is_err(), "this call finds out");
    caller.call("kv.set", "key", "4").await.unwrap();
    assert_eq!(caller.call("kv.get", "key", "").await.unwrap(), "4");

    caller.host.forget(&caller.context.nats);
    assert_eq!(caller.call("kv.get", "key", "").await.unwrap(), "4", "forgotten is not forbidden");
}

#[tokio::test]
async fn sizes_are_bounded_and_a_full_bucket_can_be_emptied() {
    let server = NatsServer::start().await;
    let caller = Caller::new(server.client().await, config("kv", true, json!({"max_bytes": 4096})));
    let (code, text) = caller.refused("kv.set", "big", vec![0; 1024 * 1024 + 1]).await;
    assert!(code == 413 && text.contains("1048577 bytes"), "{text}");
    caller.call("kv.set", "one", vec![0; 3000]).await.unwrap();
    let (code, text) = caller.refused("kv.set", "two", vec![0; 3000]).await;
    assert!(code == 507 && text.contains("hs_default_echo_kv is full"), "{text}");
    caller.call("kv.delete", "one", "").await.unwrap();
    caller.call("kv.set", "two", vec![0; 3000]).await.unwrap();
}

#[tokio::test]
async fn without_jetstream_the_text_says_so() {
    let server = NatsServer::start_with(NatsOptions { jetstream: false, ..NatsOptions::default() }).await;
    let caller = Caller::of(&server).await;
    for what in ["kv.get", "objectstore.get"] {
        let (code, text) = caller.refused(what, "key", "").await;
        assert!(code == 503 && text.contains("JetStream is not enabled"), "{what}: {text}");
    }
    let options = NatsOptions {
        config: "accounts { A { users: [{ user: a, password: a }] } }\nno_auth_user: a\n".to_owned(),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let (code, text) = Caller::of(&server).await.refused("kv.get", "key", "").await;
    assert!(code == 503 && text.contains("JetStream is not enabled"), "an account without JetStream: {text}");
}

#[tokio::test]
async fn a_service_that_is_off_is_off_alone() {
    let server = NatsServer::start().await;
    let caller = Caller::new(server.client().await, config("kv", false, Value::Null));
    assert_eq!(caller.refused("kv.keys", "", "").await.0, 403);
    assert_eq!(caller.json("objectstore.list", "", "").await, json!([]));
    assert_eq!(Config::default(), config("kv", true, Value::Null));
}

//! Host services act with the rights of their namespace, where the operator gave it a user of its own.

use nex_bus::settings::ConnectionSettings;
use nex_client::Client;
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_testkit::{NatsOptions, NatsServer};
use serde_json::json;
use tempfile::TempDir;

use crate::world::World;

/// Does with the host services what it is told, and tells what came of it.
const SERVANT: &str = "(subject, payload) => {
    const text = (bytes) => String.fromCharCode(...bytes);
    const [what, target] = text(payload).split(' ');
    const { kv, objectStore, messaging } = hostServices;
    const hi = new Uint8Array([104, 105]);
    try {
        switch (what) {
            case 'kv': kv.set('key', hi); return text(kv.get('key'));
            case 'object': objectStore.put('name', hi); return text(objectStore.get('name'));
            case 'publish': messaging.publish(target, hi); return 'sent';
            default: return text(messaging.request(target, hi));
        }
    } catch (error) { return String(error); }
}";

/// Counts and compares, with a bucket that others change as well.
const COUNTER: &str = "(subject, payload) => {
    const text = (bytes) => String.fromCharCode(...bytes), bytes = (text) => new TextEncoder().encode(text);
    const { kv } = hostServices;
    const first = kv.entry('key');
    const revision = kv.update('key', bytes('one'), first.revision);
    let late; try { kv.update('key', bytes('late'), first.revision); } catch (error) { late = String(error); }
    const entry = kv.entry('key');
    return [first.value, late.includes('409'), entry.revision === revision, text(entry.value), kv.increment('n'), kv.increment('n', 41)];
}";

#[tokio::test(flavor = "multi_thread")]
async fn a_function_compares_sets_and_counts() {
    let mut world = World::start(json!({"host_services": {"services": {"kv": {"enabled": true}}}})).await;
    let mut counter = world.prepare("counter", WorkloadType::V8, COUNTER.as_bytes()).await;
    counter.triggers = vec!["fn.count".to_owned()];
    world.deploy(&counter).await;
    assert_eq!(world.call("fn.count", "").await, r#"[null,true,true,"one",1,42]"#);
    world.stop().await;
}

/// What a user may publish that has one bucket of each kind, and subjects that begin with its name.
fn rights(user: &str) -> String {
    let of_bucket = |stream: &str, keys: &str| {
        format!(
            "\"$JS.API.STREAM.INFO.{stream}\", \"$JS.API.STREAM.CREATE.{stream}\", \"$JS.API.STREAM.PURGE.{stream}\", \
             \"$JS.API.DIRECT.GET.{stream}.>\", \"$JS.API.CONSUMER.CREATE.{stream}\", \"$JS.API.CONSUMER.CREATE.{stream}.>\", \"$JS.FC.{stream}.>\", \"{keys}.>\""
        )
    };
    let buckets = [
        of_bucket(&format!("KV_of_{user}"), &format!("$KV.of_{user}")),
        of_bucket(&format!("OBJ_of_{user}"), &format!("$O.of_{user}")),
    ];
    format!(
        "{{ user: {user}, password: {user}, permissions: {{ publish: [\"{user}.>\", \"$JS.API.INFO\", {}], subscribe: \"_INBOX.>\" }} }}",
        buckets.join(", ")
    )
}

/// A node, and a server whose users `a` and `b` are those of the namespaces `a` and `b`; every function's buckets are `b`'s.
async fn narrowed(contexts: &TempDir) -> World {
    let users = format!("authorization {{ users: [ {{ user: node, password: secret }}, {}, {} ] }}\n", rights("a"), rights("b"));
    let nats = NatsServer::start_with(NatsOptions { config: users, ..NatsOptions::default() }).await;
    let context = |user: &str| {
        let path = contexts.path().join(format!("{user}.json"));
        std::fs::write(&path, json!({"url": nats.url(), "user": user, "password": user}).to_string()).unwrap();
        path
    };
    let bucket = json!({"enabled": true, "config": {"bucket_name": "of_b"}});
    let services = json!({"kv": bucket, "objectstore": bucket});
    let config = json!({"host_services": {"services": services, "namespaces": {"a": context("a"), "b": context("b")}}});
    let connection = ConnectionSettings {
        user: Some("node".into()),
        password: Some("secret".into()),
        ..ConnectionSettings::to_servers(&nats.url())
    };
    World::start_on(nats, connection, config).await
}

async fn deploy(world: &World, namespace: &str) -> DeployResponse {
    let client = Client::new(world.client.nats().clone(), namespace.parse().unwrap());
    let mut servant = world.prepare(&format!("servant-{namespace}"), WorkloadType::V8, SERVANT.as_bytes()).await;
    servant.triggers = vec![format!("fn.{namespace}")];
    Box::pin(client.deploy(&servant, &world.target(), &world.keys)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_reaches_the_buckets_and_subjects_of_its_namespaces_user_and_hears_what_it_may_not() {
    let contexts = TempDir::new().unwrap();
    let mut world = narrowed(&contexts).await;
    for namespace in ["a", "b"] {
        deploy(&world, namespace).await;
    }
    let mut heard = world.client.nats().subscribe("b.*").await.unwrap();
    world.client.nats().flush().await.unwrap();

    assert_eq!(world.call("fn.b", "kv").await, "\"hi\"");
    assert_eq!(world.call("fn.b", "object").await, "\"hi\"");
    assert_eq!(world.call("fn.b", "publish b.own").await, "\"sent\"");
    for (asked, subject) in [
        ("kv", "STREAM.INFO.KV_of_b"),
        ("object", "STREAM.INFO.OBJ_of_b"),
        ("request b.asked", "b.asked"),
        ("publish b.told", "b.told"),
    ] {
        let answer = world.call("fn.a", asked).await;
        assert!(answer.contains("may not publish to") && answer.contains(subject), "{asked}: {answer}");
    }
    // The server says no once and the connection goes on.
    assert_eq!(world.call("fn.a", "publish a.own").await, "\"sent\"");
    assert_eq!(world.call("fn.b", "publish b.last").await, "\"sent\"");
    let mut subjects = Vec::new();
    while subjects.last().is_none_or(|last| last != "b.last") {
        let message = tokio::time::timeout(crate::world::timeout(), futures::StreamExt::next(&mut heard)).await.unwrap().unwrap();
        subjects.push(message.subject.to_string());
    }
    assert_eq!(subjects, ["b.own", "b.last"]);
    world.stop().await;
}

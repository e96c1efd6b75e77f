//! Whatever is sent: one answer, of the right kind, and a node that goes on.

use nex_protocol::claims::{Claims, sign};
use nex_protocol::deploy::WorkloadType;
use nex_testkit::guest;
use serde_json::{Value, json};

use crate::world::World;

/// Bodies that are no request of any kind.
fn junk() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> =
        ["", "null", "[]", "7", "\"text\"", "true", "{", "{}x", "[null]", "{\"a\":", "nul", "\u{feff}{}"]
            .map(Into::into)
            .to_vec();
    bodies.push([b"[".repeat(5_000), b"]".repeat(5_000)].concat());
    bodies.push([b"{\"a\":".repeat(5_000), b"1".to_vec(), b"}".repeat(5_000)].concat());
    bodies.push([b"{\"location\":".repeat(2_000), b"1".to_vec(), b"}".repeat(2_000)].concat());
    bodies.push(b"x".repeat(900 * 1024));
    bodies.push([b"{\"workload_jwt\":\"".to_vec(), b"a".repeat(900 * 1024), b"\"}".to_vec()].concat());
    bodies.push(vec![0xff, 0xfe, 0x00, 0x80]);
    bodies.push(b"{\"workload_jwt\":\"\xff\xfe\"}".to_vec());
    bodies.push(b"{\"type\":\"native\",\"type\":\"v8\"}".to_vec());
    bodies
}

fn wrong_values() -> Vec<Value> {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(7),
        json!(-1.5e300),
        json!(true),
        json!("\u{0}"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"a": null}),
        deep,
    ]
}

/// A valid request with each member missing, and with each member of every wrong kind.
fn mutations(valid: impl Fn() -> Value) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for member in valid().as_object().unwrap().keys() {
        let mut without = valid();
        without.as_object_mut().unwrap().remove(member);
        bodies.push(without);
        for wrong in wrong_values() {
            let mut with = valid();
            with[member] = wrong;
            bodies.push(with);
        }
    }
    bodies.into_iter().map(|body| body.to_string().into_bytes()).collect()
}

fn token(world: &World) -> String {
    let digest = nex_protocol::digest::Digest::of(b"x");
    let claims = Claims::to_start("x", &world.keys.issuer, &digest, nex_node::clock::unix_seconds(), 60);
    sign(&claims, &world.keys.issuer).unwrap()
}

/// Sends every body, a PING after each; says what was answered to each.
async fn bombard(world: &World, subject: &str, kind: &str, bodies: &[Vec<u8>]) -> Vec<Value> {
    let questions: Vec<_> =
        bodies.iter().flat_map(|body| [(subject.to_owned(), body.clone()), ("$NEX.PING".to_owned(), Vec::new())]).collect();
    let mut told = Vec::new();
    for (answers, (asked, body)) in world.ask_all(&questions).await.iter().zip(&questions) {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]);
        assert_eq!(answers.len(), 1, "answers on {asked} to {start}: {answers:?}");
        assert!(!answers[0].payload.is_empty(), "empty answer on {asked} to {start}: {:?}", answers[0]);
        let answer: Value = serde_json::from_slice(&answers[0].payload).unwrap();
        let kind = if asked == subject { kind } else { "ping" };
        assert_eq!(answer["type"], format!("io.nats.nex.v1.{kind}_response"), "{start}: {answer}");
        if asked == subject {
            told.push(answer);
        }
    }
    told
}

fn is_refusal(answer: &Value) -> bool {
    answer["data"] == "" && answer["error"].as_str().is_some_and(|error| !error.is_empty()) && answer["code"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_deployed_or_stopped_gets_one_refusal_and_the_node_goes_on() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    let (deploy, stop) = (format!("$NEX.DEPLOY.default.{node}"), format!("$NEX.STOP.default.{node}"));
    for (subject, kind, what) in [(&deploy, "run", "deploy"), (&stop, "stop", "stop")] {
        for (answer, body) in bombard(&world, subject, kind, &junk()).await.iter().zip(junk()) {
            assert!(is_refusal(answer), "{answer}");
            if ["", "null", "[]", "7", "{"].iter().any(|it| it.as_bytes() == body) {
                let expected = format!("Unable to deserialize {what} request: ");
                assert!(answer["error"].as_str().unwrap().starts_with(&expected), "{answer}");
            }
        }
    }
    // A request as a client sends it, but for one member. Its artifact does not exist, so nothing of this ever starts.
    let sealed = nex_protocol::seal::seal(&Default::default(), &world.keys.sender, &world.target().xkey).unwrap();
    let valid = || {
        json!({
            "argv": ["a"], "description": "d", "type": "v8", "location": {"Scheme": "nats", "Host": "NONE", "Path": "/none"},
            "essential": false, "workload_jwt": token(&world), "environment": sealed, "jsdomain": "",
            "sender_public_key": world.keys.sender.public_key(), "target_node": node.as_str(), "trigger_subjects": ["x"],
            "trigger_connection": {"nats_url": "nats://127.0.0.1:1"}, "host_services": {"nats_url": "nats://127.0.0.1:1"},
            "limits": {"memory_mib": 1},
        })
    };
    for answer in bombard(&world, &deploy, "run", &mutations(valid)).await {
        assert!(is_refusal(&answer), "{answer}");
    }
    let domains = [&"a".repeat(5_000), "a b", "a\r\nPUB x 0\r\n\r\n", "a\t", "a\0", "*", ">", "a..b", "\u{85}"];
    let bodies = domains.map(|domain| {
        let mut with = valid();
        with["jsdomain"] = domain.into();
        with.to_string().into_bytes()
    });
    for answer in bombard(&world, &deploy, "run", &bodies).await {
        assert!(is_refusal(&answer) && answer["error"].as_str().unwrap().contains("is not a JetStream domain"), "{answer}");
    }
    let running = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let valid = || json!({"workload_id": running.id, "workload_jwt": "a.b.c", "target_node": node.as_str()});
    for answer in bombard(&world, &stop, "stop", &mutations(valid)).await {
        assert!(is_refusal(&answer), "{answer}");
    }
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    assert_eq!(world.client.info(&node).await.unwrap().machines.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_whatever_their_body_is() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    for (subject, kind) in [
        ("$NEX.PING".to_owned(), "ping"),
        (format!("$NEX.PING.{node}"), "ping"),
        ("$NEX.AUCTION".to_owned(), "auction"),
        ("$NEX.WPING.default".to_owned(), "ping"),
        ("$NEX.WPING.default.greet".to_owned(), "ping"),
        (format!("$NEX.INFO.default.{node}"), "info"),
        (format!("$NEX.LAMEDUCK.{node}"), "lameduck"),
    ] {
        for answer in bombard(&world, &subject, kind, &junk()).await {
            assert!(answer["data"].is_object() && answer.get("error").is_none(), "{subject}: {answer}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_namespaces_and_requests_without_a_reply_subject_harm_nothing() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    for namespace in ["ü", "a:b", "$", "-"] {
        let answer = world.ask(&format!("$NEX.DEPLOY.{namespace}.{node}"), "{}").await;
        assert!(is_refusal(&answer), "{answer}");
        assert!(is_refusal(&world.ask(&format!("$NEX.STOP.{namespace}.{node}"), "{}").await));
        assert_eq!(world.ask(&format!("$NEX.INFO.{namespace}.{node}"), "").await["data"]["machines"], json!([]));
    }
    for subject in [format!("$NEX.DEPLOY.default.{node}"), format!("$NEX.STOP.default.{node}"), "$NEX.AUCTION".into()] {
        world.client.nats().publish(subject, "{}".into()).await.unwrap();
    }
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["running_machines"], 0);
    world.stop().await;
}

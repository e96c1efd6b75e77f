//! Functions that attack those on the same agent: what these were asked is answered, every time.

use std::time::Duration;

use nex_bus::settings::ConnectionSettings;
use nex_client::deploy::Deployment;
use nex_protocol::deploy::{Isolation, WorkloadType};
use nex_testkit::{NatsOptions, NatsServer, eventually, guest, machines, skip};
use serde_json::json;

use crate::functions::relaying;
use crate::world::{World, kill9, timeout};

const WHY: &str = "machines share nothing";
/// Calls of each neighbour during each attack.
const CALLS: usize = 20;
/// Calls of an attacker under way at once.
const CONCURRENT_CALLS: usize = 24;

/// Answers what a well-behaved function can tell of its world: whatever a neighbour did would show here.
const VICTIM: &str = r#"
let calls = 0;
(subject, payload) => {
  calls += 1;
  const object = {};
  return [calls, [1, 2, 3].map((n) => n * 2).join(), typeof object.polluted, JSON.stringify({ a: 1 }), String.fromCharCode(...payload)];
};
"#;
const VICTIMS_ANSWER: &str = r#"[1,"2,4,6","undefined","{\"a\":1}","you"]"#;

/// What it does is its own doing; what it reaches are its own things.
const ATTACKS: [(&str, &str); 9] = [
    ("loop", "() => { for (;;) {} }"),
    ("memory", "() => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }"),
    (
        "pollution",
        "() => { Object.prototype.polluted = 1; Array.prototype.map = () => []; JSON.stringify = () => 'x'; globalThis.calls = 7; return 1; }",
    ),
    ("timers", "() => { setInterval(() => { for (;;) {} }, 0); setTimeout(() => {}, 100000); return 1; }"),
    ("replies", "() => 'x'.repeat(900000)"),
    ("logs", "() => { for (let n = 0; n < 20000; n += 1) console.log('x'.repeat(200)); }"),
    (
        "host calls",
        "() => { for (let n = 0; n < 2000; n += 1) { try { hostServices.kv.set('k' + n, 'v'); } catch (e) {} } return 1; }",
    ),
    ("stack", "() => { const f = () => f() + f(); return f(); }"),
    ("regexp", "() => /^(a+)+$/.test('a'.repeat(40) + 'b')"),
];

async fn attacked(mut world: World) {
    let before = world.agents();
    let isolate = async |name: &str, kind, bytes: &[u8]| world.deploy(&world.isolate(name, kind, bytes).await).await;
    let victim = isolate("victim", WorkloadType::V8, VICTIM.as_bytes()).await;
    let echo = isolate("echo", WorkloadType::Wasm, &guest::assemble(guest::ECHO_WAT)).await;
    let shared = world.new_agent(&before).await;
    let mut attackers: Vec<(String, WorkloadType, Vec<u8>)> =
        ATTACKS.iter().map(|(name, source)| (name.replace(' ', "-"), WorkloadType::V8, source.as_bytes().to_vec())).collect();
    for (name, text) in [("wasm-loop", guest::LOOPING_WAT), ("wasm-memory", guest::GREEDY_WAT)] {
        attackers.push((name.to_owned(), WorkloadType::Wasm, guest::assemble(text)));
    }
    for (name, kind, bytes) in &attackers {
        let mut attacker = world.isolate(name, *kind, bytes).await;
        attacker.limits.call_timeout_ms = Some(1_000);
        world.deploy(&attacker).await;
    }
    for (name, ..) in &attackers {
        let inbox = world.client.nats().new_inbox();
        for _ in 0..CONCURRENT_CALLS {
            world.client.nats().publish_with_reply(name.clone(), inbox.clone(), "".into()).await.unwrap();
        }
        world.client.nats().flush().await.unwrap();
        let mut answered = 0;
        for _ in 0..CALLS {
            let (victims, echos) = tokio::join!(world.call("victim", "you"), world.call("echo", "me"));
            assert_eq!((victims.as_str(), echos.as_str()), (VICTIMS_ANSWER, "me"), "during {name}");
            answered += 2;
        }
        assert_eq!(answered, 2 * CALLS, "during {name}");
    }
    for started in [&victim, &echo] {
        let now = world.workload(&started.id).await.unwrap();
        assert_eq!((now.restarts, now.state.as_str()), (0, "running"), "{}", started.name);
    }
    assert_eq!(world.agents().get(&shared.0), Some(&shared.1), "the agent is the same one");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_answered_under_every_attack_where_the_agent_is_called_directly() {
    if machines::in_machines() {
        skip!("neighbours_are_answered_under_every_attack_where_the_agent_is_called_directly", WHY);
    }
    let config = "max_payload: 2097152\n".into();
    let nats = NatsServer::start_with(NatsOptions { config, ..NatsOptions::default() }).await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let services = json!({"services": {"kv": {"enabled": true, "config": {"bucket_name": "b"}}}});
    attacked(World::start_on(nats, connection, json!({"host_services": services})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_answered_under_every_attack_where_the_node_relays() {
    if machines::in_machines() {
        skip!("neighbours_are_answered_under_every_attack_where_the_node_relays", WHY);
    }
    attacked(relaying(json!({})).await).await;
}

/// The engine compares long texts natively, one after the other, and looks at nothing meanwhile.
const STUCK: &str =
    "() => { const long = 'x'.repeat(1 << 20); return new Array(1000000).fill(long + 'a').includes(long + 'b'); }";

#[tokio::test(flavor = "multi_thread")]
async fn a_native_call_that_never_returns_ends_its_agent_and_after_three_times_it_has_one_of_its_own() {
    if machines::in_machines() {
        skip!("a_native_call_that_never_returns_ends_its_agent_and_after_three_times_it_has_one_of_its_own", WHY);
    }
    let mut world = World::start(json!({"isolation": {"default": "isolate"}})).await;
    let victim = world.run("victim", WorkloadType::V8, VICTIM.as_bytes()).await;
    let mut stuck = world.prepare("stuck", WorkloadType::V8, STUCK.as_bytes()).await;
    stuck.limits.call_timeout_ms = Some(1_000);
    let stuck = world.deploy(&stuck).await;
    for strike in 1..=3 {
        assert_eq!(world.call_again("victim", "you").await, VICTIMS_ANSWER);
        let called = eventually(timeout(), async || {
            let refused = world.client.call("stuck", "".into(), Duration::from_secs(5)).await.err();
            refused.is_some_and(|error| error.to_string().contains("longer than its limit of 1000 ms"))
        });
        assert!(called.await, "its caller is told that it took too long");
        let again = eventually(timeout(), async || {
            let of = async |id: &str| world.workload(id).await.filter(|it| it.state == "running").map(|it| it.restarts);
            of(&stuck.id).await >= Some(strike) && of(&victim.id).await >= Some(strike)
        });
        assert!(again.await, "strike {strike}: {:?}", world.workload(&victim.id).await);
    }
    let told = world.events("agent_stopped");
    let named = told.iter().filter(|it| it.data["message"].as_str().is_some_and(|text| text.contains(&stuck.id)));
    assert_eq!((told.len(), named.count()), (3, 3), "each time the culprit is named, once: {told:?}");
    assert_eq!(world.isolation_of(&stuck).await, Some(Isolation::Process), "it has an agent of its own");
    assert_eq!(world.isolation_of(&victim).await, Some(Isolation::Isolate));
    // Now it can do as it likes.
    drop(world.client.call("stuck", "".into(), Duration::from_secs(5)).await);
    let mut answers = 0;
    for _ in 0..CALLS {
        assert_eq!(world.call("victim", "you").await, VICTIMS_ANSWER);
        answers += 1;
    }
    assert_eq!((answers, world.workload(&victim.id).await.unwrap().restarts), (CALLS, 3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_when_an_agent_dies_fail_and_none_is_lost_without_a_word() {
    if machines::in_machines() {
        skip!("calls_under_way_when_an_agent_dies_fail_and_none_is_lost_without_a_word", WHY);
    }
    let mut world = relaying(json!({})).await;
    let before = world.agents();
    let slow = "async () => { console.log('begun'); await new Promise((done) => setTimeout(done, 1500)); return 'slow'; }";
    let limits = |deployment: Deployment| Deployment { isolation: Some(Isolation::Isolate), ..deployment };
    for name in ["slow", "slower"] {
        world.deploy(&limits(world.prepare(name, WorkloadType::V8, slow.as_bytes()).await)).await;
    }
    let shared = world.new_agent(&before).await;
    let questions: Vec<_> = ["slow", "slower", "slow", "slower"].map(|name| (name.to_owned(), Vec::new())).to_vec();
    let asked = world.ask_all(&questions);
    let killed = async {
        world.until("they are under way", |it| it.has_logged("begun")).await;
        kill9(shared.1);
    };
    let (answers, ()) = tokio::join!(asked, killed);
    assert!(answers.iter().all(|answers| answers.len() == 1), "one answer each, good or bad: {answers:?}");
    for name in ["slow", "slower"] {
        assert_eq!(world.call_again(name, "").await, "\"slow\"");
    }
    world.stop().await;
}

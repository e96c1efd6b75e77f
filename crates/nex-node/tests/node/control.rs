//! The control API as others see it on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use nex_bus::settings::ConnectionSettings;
use nex_client::deploy::Deployment;
use nex_protocol::deploy::{Isolation, WorkloadType};
use nex_testkit::{NatsOptions, NatsServer, eventually, guest, machines, skip};
use serde_json::{Value, json};

use crate::functions::relaying;
use crate::world::{World, timeout};

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The data of a success in an envelope of this kind.
fn data(envelope: &Value, kind: &str) -> Value {
    assert_eq!(members(envelope), ["data", "type"], "{envelope}");
    assert_eq!(envelope["type"], format!("io.nats.nex.v1.{kind}_response"));
    envelope["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_answers_once_in_the_envelope_of_0_2_7() {
    let mut world = World::start(json!({"tags": {"zone": "a"}})).await;
    let node = world.target().node;
    let xkey = world.target().xkey;
    world.until_warm(1).await;
    let started = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    world.until_warm(1).await;

    let ping = data(&world.ask("$NEX.PING", "").await, "ping");
    let shape =
        ["nexus", "node_id", "running_machines", "tags", "target_xkey", "uptime", "version", "warm_agents", "xkey_signature"];
    assert_eq!(members(&ping), shape);
    assert_eq!((&ping["node_id"], &ping["target_xkey"]), (&json!(node.as_str()), &json!(xkey)));
    assert_eq!((&ping["running_machines"], &ping["warm_agents"], &ping["nexus"]), (&json!(1), &json!(1), &json!("test")));
    assert!(ping["uptime"].as_str().unwrap().ends_with('s'), "{ping}");
    let sandbox = machines::sandbox();
    for (tag, value) in [("zone", "a"), ("nex.os", "linux"), ("nex.sandbox", sandbox.as_str())] {
        assert_eq!(ping["tags"][tag], value, "{ping}");
    }
    // Where there is a Firecracker, whether there is its jailer as well decides it.
    assert!(sandbox == "firecracker" || ping["tags"]["nex.unsafe"] == "true", "{ping}");
    assert!(ping["tags"]["nex.cpucount"].as_str().unwrap().parse::<usize>().unwrap() > 0);
    assert!(ping["tags"]["node_name"].as_str().unwrap().starts_with("node-"));
    assert_eq!(members(&data(&world.ask(&format!("$NEX.PING.{node}"), "x").await, "ping")), shape);
    assert_eq!(members(&data(&world.ask("$NEX.AUCTION", "").await, "auction")), shape);

    let wping = data(&world.ask("$NEX.WPING.default", "").await, "ping");
    assert_eq!(members(&wping), ["node_id", "running_machines", "tags", "target_xkey", "uptime", "version"]);
    let machine = &wping["running_machines"][0];
    assert_eq!(
        members(machine),
        ["artifact", "id", "isolation", "issuer", "name", "namespace", "state", "triggers", "type", "uptime"]
    );
    assert_eq!((&machine["id"], &machine["type"], &machine["state"]), (&json!(started.id), &json!("v8"), &json!("running")));

    let info = data(&world.ask(&format!("$NEX.INFO.default.{node}"), "").await, "info");
    let shape = [
        "history",
        "host",
        "machines",
        "memory",
        "public_xkey",
        "supported_workload_types",
        "tags",
        "uptime",
        "version",
        "xkey_signature",
    ];
    assert_eq!(members(&info), shape);
    assert_eq!((&info["public_xkey"], &info["supported_workload_types"]), (&json!(xkey), &json!(["native", "v8", "wasm"])));
    assert!(info["history"]["max_bytes"].as_u64() >= Some(1024 * 1024) && info["host"]["processors"].as_u64() >= Some(1));
    assert!(info["memory"]["total"].as_u64().unwrap() > info["memory"]["available"].as_u64().unwrap());
    let machine = &info["machines"][0];
    assert_eq!(members(machine), ["healthy", "id", "namespace", "uptime", "workload"]);
    assert_eq!(members(&machine["workload"]), ["hash", "name", "runtime", "type"]);
    let digest = nex_protocol::digest::Digest::of(guest::GREET_MJS.as_bytes()).to_string();
    assert_eq!((&machine["healthy"], &machine["workload"]["hash"]), (&json!(true), &json!(digest)));

    let lame = data(&world.ask(&format!("$NEX.LAMEDUCK.{node}"), "").await, "lameduck");
    assert_eq!(lame, json!({"node_id": node.as_str(), "success": true}));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auction_takes_every_body_and_stays_silent_where_it_does_not_fit_unless_asked_why() {
    let mut world = World::start(json!({"tags": {"Zone": "A"}, "workload_types": ["native", "js"]})).await;
    let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "AMD64" };
    let fitting = [
        String::new(),
        "null".into(),
        "garbage {".into(),
        "[]".into(),
        "7".into(),
        "{}".into(),
        json!({"arch": arch, "os": "Linux", "sandboxed": false, "tags": {"Zone": "a"}, "workload_types": ["native", "v8", "js"]})
            .to_string(),
        json!({"arch": null, "os": null, "tags": null, "workload_types": null, "unknown": {}}).to_string(),
    ];
    let questions: Vec<_> = fitting.iter().map(|body| ("$NEX.AUCTION".to_owned(), body.clone().into_bytes())).collect();
    for (answers, body) in world.ask_all(&questions).await.iter().zip(&fitting) {
        assert_eq!(answers.len(), 1, "{body}");
        let bid = data(&serde_json::from_slice(&answers[0].payload).unwrap(), "auction");
        assert!(bid.get("declined").is_none(), "{body}: {bid}");
    }
    for (wanted, word) in [
        (json!({"arch": "s390x"}), "architecture"),
        (json!({"os": "darwin"}), "operating system"),
        (json!({"sandboxed": true}), "microVM"),
        (json!({"tags": {"zone": "a"}}), "no tag zone"),
        (json!({"workload_types": ["native", "wasm"]}), "type wasm"),
    ] {
        let silent = world.client.nats().send_request(
            "$NEX.AUCTION",
            async_nats::Request::new().payload(wanted.to_string().into()).timeout(Some(Duration::from_millis(100))),
        );
        assert!(silent.await.is_err(), "{wanted} gets a bid");
        let mut asking = wanted.clone();
        asking["explain"] = true.into();
        let bid = data(&world.ask("$NEX.AUCTION", asking.to_string()).await, "auction");
        assert!(bid["declined"][0].as_str().unwrap().contains(word), "{bid}");
        assert_eq!(bid["declined"].as_array().unwrap().len(), 1, "{bid}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_found_by_namespace_id_and_name_and_nobody_answers_for_what_is_not_there() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    let deployment = world.prepare("Greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let one = world.deploy(&deployment).await;
    let other = nex_client::Client::new(world.client.nats().clone(), "other".parse().unwrap());
    let failure = other.deploy(&deployment, &world.target(), &world.keys).await.unwrap_err().to_string();
    assert!(failure.contains("The trigger subject Greet overlaps with one of another namespace"), "{failure}");
    let elsewhere = Deployment { triggers: vec!["other.greet".into()], ..deployment };
    let two = other.deploy(&elsewhere, &world.target(), &world.keys).await.unwrap();

    for (asked, expected) in [
        ("default".to_owned(), &one.id),
        ("default.greet".to_owned(), &one.id),
        (format!("default.{}", one.id), &one.id),
        ("default.greet.more.tokens".to_owned(), &one.id),
        ("other".to_owned(), &two.id),
        ("other.GREET".to_owned(), &two.id),
    ] {
        let found = data(&world.ask(&format!("$NEX.WPING.{asked}"), "junk").await, "ping");
        assert_eq!(found["running_machines"].as_array().unwrap().len(), 1, "{asked}: {found}");
        assert_eq!(found["running_machines"][0]["id"], **expected, "{asked}");
    }
    for silent in [format!("other.{}", one.id), "third".into(), "default.gree".into(), "DEFAULT".into()] {
        let request = async_nats::Request::new().timeout(Some(Duration::from_millis(100)));
        assert!(world.client.nats().send_request(format!("$NEX.WPING.{silent}"), request).await.is_err(), "{silent}");
    }
    for (namespace, expected) in [("default", vec![&one.id]), ("other", vec![&two.id]), ("Other", vec![]), ("third", vec![])] {
        let info = data(&world.ask(&format!("$NEX.INFO.{namespace}.{node}"), "").await, "info");
        let ids: Vec<_> = info["machines"].as_array().unwrap().iter().map(|machine| machine["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{namespace}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_a_nats_micro_service_named_nex() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    let ping = world.ask("$SRV.PING.nex", "").await;
    assert_eq!((&ping["name"], &ping["type"]), (&json!("nex"), &json!("io.nats.micro.v1.ping_response")));
    assert_eq!(world.ask("$SRV.PING", "").await["id"], ping["id"]);
    let info = world.ask("$SRV.INFO.nex", "").await;
    assert_eq!((&info["metadata"]["node"], &info["metadata"]["nexus"]), (&json!(node.as_str()), &json!("test")));
    let subjects: Vec<_> = info["endpoints"].as_array().unwrap().iter().map(|it| it["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects.len(), 10, "{subjects:?}");
    assert!(subjects.contains(&format!("$NEX.DEPLOY.*.{node}").as_str()), "{subjects:?}");
    let names: std::collections::BTreeSet<_> =
        info["endpoints"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 10, "every endpoint has a name of its own");
    let stats = world.ask("$SRV.STATS.nex", "").await;
    assert_eq!(stats["endpoints"].as_array().unwrap().len(), 10);
    world.stop().await;
}

/// Functions are micro services of their own, by whichever way they are called: the node answers for them.
async fn functions_are_micro_services(mut world: World) {
    let deployment =
        world.prepare("failing", WorkloadType::V8, b"(s, p) => { if (p.length) throw new Error('no'); return 1 }").await;
    let deployment = Deployment { triggers: vec!["fn.one".into(), "fn.two.*".into()], ..deployment };
    let started = world.deploy(&deployment).await;
    let questions = |count: usize, subject: &str, body: &str| vec![(subject.to_owned(), body.as_bytes().to_vec()); count];
    world.ask_all(&questions(3, "fn.one", "")).await;
    world.ask_all(&questions(2, "fn.two.x", "y")).await;

    let ping = world.ask("$SRV.PING.default-failing", "").await;
    assert_eq!((&ping["id"], &ping["metadata"]["namespace"]), (&json!(started.id), &json!("default")), "{ping}");
    let info = world.ask(&format!("$SRV.INFO.default-failing.{}", started.id), "").await;
    let endpoint = json!({"name": "fn-two--", "subject": "fn.two.*", "queue_group": "nex.default.failing", "metadata": {}});
    assert_eq!(info["endpoints"][1], endpoint, "{info}");
    let stats = async || world.ask("$SRV.STATS.default-failing", "").await["endpoints"].clone();
    let counted = |stats: &Value| (stats[0]["num_requests"].as_u64(), stats[1]["num_errors"].as_u64()) == (Some(3), Some(2));
    // The agent tells a few times a second.
    assert!(eventually(timeout(), async || counted(&stats().await)).await, "{}", stats().await);
    let found = stats().await;
    assert!(found[0]["average_processing_time"].as_u64() > Some(0) && found[0]["num_errors"] == json!(0), "{found}");
    assert!(found[1]["last_error"].as_str().unwrap().contains("Error: no"), "{found}");
    // Everybody is asked at once; each answers for itself, and no answer goes where it would be an order.
    let all = world.ask_all(&questions(1, "$SRV.PING", "")).await.remove(0);
    assert_eq!(all.len(), 2, "the node and the function: {all:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_called_directly_are_micro_services() {
    functions_are_micro_services(World::start(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_whose_calls_the_node_relays_are_micro_services() {
    functions_are_micro_services(relaying(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_larger_than_a_message_come_in_several_and_a_nodes_info_says_what_it_leaves_out() {
    if machines::in_machines() {
        let test = "lists_larger_than_a_message_come_in_several_and_a_nodes_info_says_what_it_leaves_out";
        skip!(test, "sixty functions share an agent, which machines have none of");
    }
    let nats = NatsServer::start_with(NatsOptions { config: "max_payload: 140KB\n".into(), ..NatsOptions::default() }).await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let mut world = World::start_on(nats, connection, json!({})).await;
    let mut function = world.prepare("function", WorkloadType::V8, b"() => 1").await;
    function.isolation = Some(Isolation::Isolate);
    // What is told of each is long.
    function.description = "d".repeat(3_000);
    let subject = |workload: usize, trigger: usize| format!("{}.{workload}.{trigger}", "s".repeat(400));
    let mut ids = BTreeSet::new();
    for number in 0..60 {
        function.name = format!("function-{number}").parse().unwrap();
        function.triggers = (0..8).map(|trigger| subject(number, trigger)).collect();
        ids.insert(world.deploy(&function).await.id);
    }
    let found = world.client.workloads(None, timeout()).await.unwrap();
    assert_eq!(found.into_iter().map(|it| it.workload.id).collect::<BTreeSet<_>>(), ids);
    let node = world.target().node;
    let info = world.client.info(&node).await.unwrap();
    assert_eq!(info.machines.len() + info.more_machines, ids.len());
    assert!(info.more_machines > 0 && !info.machines.is_empty(), "{} of {}", info.machines.len(), ids.len());
    world.stop().await;
}

//! Workloads that the configuration starts.

use nex_bus::settings::ConnectionSettings;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::{NatsServer, eventually, guest};
use serde_json::json;

use crate::world::{World, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn entries_start_with_their_environment_and_bad_ones_keep_nobody_from_starting() {
    let nats = NatsServer::start().await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let entry = |name: &str, rest: serde_json::Value| {
        let mut entry = json!({"name": name, "namespace": "default", "type": "v8", "location": "nats://NEXCLIFILES/token",
            "environment": {"TOKEN": name}, "trigger_subjects": [name]});
        for (key, value) in rest.as_object().unwrap() {
            entry[key] = value.clone();
        }
        entry
    };
    let workloads = json!([
        entry("bad name", json!({})),
        entry("nowhere", json!({"location": "nats://NEXCLIFILES/nowhere"})),
        entry("no-location", json!({"location": "http://example.com/x"})),
        entry("no-namespace", json!({"namespace": "a.b"})),
        entry("no-type", json!({"type": "docker"})),
        entry("no-trigger", json!({"trigger_subjects": []})),
        entry("denied", json!({"trigger_subjects": ["$NEX.>"]})),
        entry("broken", json!({"location": "nats://NEXCLIFILES/script"})),
        entry("good", json!({"description": "it is good", "environment": {"TOKEN": "from the configuration"}})),
        entry("elsewhere", json!({"namespace": "other"})),
        entry("eavesdropper", json!({"namespace": "a-third", "trigger_subjects": ["good"]})),
        entry(
            "script",
            json!({"type": "native", "location": "nats://NEXCLIFILES/script", "trigger_subjects": [], "argv": ["x y"],
            "environment": {"token": "as well"}, "essential": true})
        ),
    ]);
    let config = json!({"autostart": {"workloads": workloads}, "valid_issuers": [nkeys::KeyPair::new_account().public_key()]});
    let mut world = World::without_node(nats, connection, config).await;
    world.upload("token", b"() => env.TOKEN").await;
    world.upload("script", b"#!/bin/sh\necho \"script $TOKEN $1\"\nexec sleep 1000\n").await;
    world.start_node().await;
    world.until("the script speaks", |it| it.has_logged("script as well x y")).await;
    assert_eq!(world.call("good", "").await, "\"from the configuration\"");
    assert_eq!(world.call("elsewhere", "").await, "\"elsewhere\"");
    let started = eventually(timeout(), || std::future::ready(world.node().registry().count() == 3));
    assert!(started.await, "{:?}", world.node().registry().all());
    let machines = world.client.info(&world.target().node).await.unwrap().machines;
    let names: std::collections::BTreeSet<_> =
        machines.iter().map(|it| (it.workload.name.as_str(), it.workload.description.as_str())).collect();
    assert_eq!(names, [("good", "it is good"), ("script", "")].into());
    // A node with these issuers only takes nothing from others.
    let stranger = world.prepare("stranger", WorkloadType::V8, guest::ECHO_JS.as_bytes()).await;
    assert!(world.refused(&stranger).await.message.starts_with("invalid workload issuer"));
    world.stop().await;
    world.start_node().await;
    let again = eventually(timeout(), || std::future::ready(world.node().registry().count() == 3));
    assert!(again.await, "each starts once again: {:?}", world.node().registry().all());
    world.stop().await;
}

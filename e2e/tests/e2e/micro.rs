//! A node is a NATS micro service: other NATS tools find it, know what it serves, and see how much.

use serde_json::Value;

use crate::world::World;

fn ask(world: &World, subject: &str) -> Value {
    let client = world.client();
    let reply = world.block_on(client.request(subject.to_owned(), "".into())).unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

#[test]
fn nats_micro_finds_the_node_and_its_endpoints() {
    let world = World::new();
    let _up = world.up(&[]);
    let node = world.node_id();
    let ping = ask(&world, "$SRV.PING.nex");
    assert_eq!((&ping["name"], &ping["type"]), (&"nex".into(), &"io.nats.micro.v1.ping_response".into()));
    assert_eq!(ping["metadata"]["node"], node.as_str(), "{ping}");
    let info = ask(&world, "$SRV.INFO.nex");
    let subjects: Vec<&str> = info["endpoints"].as_array().unwrap().iter().map(|it| it["subject"].as_str().unwrap()).collect();
    for subject in
        ["$NEX.PING".to_owned(), "$NEX.AUCTION".to_owned(), format!("$NEX.DEPLOY.*.{node}"), format!("$NEX.LAMEDUCK.{node}")]
    {
        assert!(subjects.contains(&subject.as_str()), "{subject} in {subjects:?}");
    }
    world.nex(&["node", "info", &node]).expect(0);
    let served = || {
        let stats = ask(&world, "$SRV.STATS.nex");
        let endpoints = stats["endpoints"].as_array().unwrap().clone();
        endpoints
            .iter()
            .any(|it| it["subject"].as_str().unwrap().starts_with("$NEX.INFO.") && it["num_requests"].as_u64() > Some(0))
    };
    world.eventually("the request is counted", served);
}

#[test]
fn an_envelope_answers_what_is_no_request() {
    let world = World::new();
    let _up = world.up(&[]);
    let node = world.node_id();
    let client = world.client();
    for (verb, kind) in [("DEPLOY", "run_response"), ("STOP", "stop_response")] {
        for body in ["", "null", "{}", "[1]", "{\"type\": 1}", "\u{0}"] {
            let reply = world.block_on(client.request(format!("$NEX.{verb}.default.{node}"), body.into())).unwrap();
            let envelope: Value = serde_json::from_slice(&reply.payload).unwrap();
            assert_eq!(envelope["type"], format!("io.nats.nex.v1.{kind}"), "{verb} {body}");
            assert!(envelope["error"].is_string(), "{verb} {body}: {envelope}");
        }
    }
    assert_eq!(world.nodes().len(), 1, "it lives");
}

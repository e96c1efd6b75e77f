//! Triggers that keep their messages, as they are typed: a function that fails, what is kept of that, and the fixed version that gets it.

use std::time::Duration;

use async_nats::jetstream::{self, stream};

use nex_testkit::dist_binary;
use nex_testkit::image::{Image, ImageLayer};

use crate::world::World;

/// Makes a stream.
pub(crate) fn stream(world: &World, name: &str, subject: &str) {
    let config = stream::Config { name: name.into(), subjects: vec![subject.into()], ..stream::Config::default() };
    let client = world.client();
    world.block_on(async { jetstream::new(client).create_stream(config).await.unwrap() });
}

fn dead(world: &World) -> Vec<serde_json::Value> {
    world.nex(&["dead", "ls", "--json"]).expect(0).json().as_array().unwrap().clone()
}

#[test]
fn what_failed_is_kept_looked_at_and_redriven_to_the_fixed_version() {
    let world = World::new();
    let _up = world.up(&[]);
    stream(&world, "ORDERS", "orders.>");
    world.nex(&["dead", "ls"]).expect(0).says(&["No dead letters"]);
    let broken = world.file("orders.js", "(subject, payload) => { throw new Error('no total in ' + subject) }");
    let trigger = "stream:ORDERS?filter=orders.new&max-deliver=2&backoff=10ms";
    world.nex(&["devrun", &broken, "--name", "orders", "--trigger", trigger]).expect(0);
    for id in 1..=3 {
        // The stream answers.
        world.nex(&["call", "orders.new", &format!("{{\"id\":{id}}}")]).expect(0);
    }
    world.eventually("all are given up", || dead(&world).len() == 3);
    world.nex(&["dead", "ls"]).expect(0).says(&["orders.new", "no total in orders.new"]);
    // They are given up in any order: each waits for its own pause.
    let letters = dead(&world);
    let (first, payload) = (&letters[0], letters[0]["payload"].as_str().unwrap());
    assert_eq!((&first["workload"], &first["attempts"], payload.len()), (&"orders".into(), &2.into(), "{\"id\":1}".len()));
    let number = first["number"].to_string();
    world.nex(&["dead", "show", &number]).expect(0).says(&["no total", trigger, payload]);
    assert_eq!(world.nex(&["dead", "show", &number, "--payload"]).expect(0).text(), payload);
    world.nex(&["dead", "show", "99"]).expect(1).says(&["there is no dead letter 99", "nex dead ls"]);
    let described = world.nex(&["describe", "orders"]).expect(0);
    described.says(&["stream:ORDERS", "active", "given up after 2 attempts"]);
    let told = world.nex(&["describe", "orders", "--json"]).expect(0).json();
    assert_eq!((&told[0]["trigger_states"][0]["dead"], &told[0]["trigger_states"][0]["stream"]), (&3.into(), &"ORDERS".into()));

    // It fails once more, and stays.
    world.nex(&["dead", "redrive", &number]).expect(1).says(&["no total", "1 failed and stay"]);
    assert_eq!(dead(&world).len(), 3);
    // Whoever listens may have it instead.
    let helper = world.file("helper.js", "(subject, payload) => 'helped'");
    world.nex(&["devrun", &helper, "--trigger_subject", "help.me"]).expect(0);
    world.nex(&["dead", "redrive", &number, "--to", "help.me"]).expect(0).says(&["Redrove 1"]);
    let fixed = world.file("orders.js", "(subject, payload) => { hostServices.messaging.publish('done', new TextEncoder().encode(subject + String.fromCharCode(...payload))) }");
    world.nex(&["devrun", &fixed, "--name", "orders", "--trigger", trigger]).expect(0);
    let client = world.client();
    let mut done = world.block_on(client.subscribe("done")).unwrap();
    world.block_on(client.flush()).unwrap();
    world.nex(&["dead", "redrive", "--workload", "orders", "--rate", "100"]).expect(0).says(&["Redrove 2", "0 failed"]);
    let next =
        async { tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut done)).await.unwrap().unwrap() };
    let expected = format!("orders.new{}", letters[1]["payload"].as_str().unwrap());
    assert_eq!(world.block_on(next).payload, expected, "with the subject that it had");
    assert!(dead(&world).is_empty());
    world.nex(&["dead", "rm", "--all"]).expect(0).says(&["Removed 0"]);
    world.nex(&["dead", "rm"]).expect(2);
    world.nex(&["describe", "nosuch"]).expect(1).says(&["nosuch", "nex ps"]);
}

#[test]
fn a_service_is_a_consumer_without_a_line_about_streams() {
    let world = World::new();
    let _up = world.up(&[]);
    stream(&world, "ORDERS", "orders.>");
    let service = dist_binary("echo-service");
    let nats_url = format!("NATS_URL={}", world.url());
    let flags = ["--name", "taker", "--trigger", "stream:ORDERS?filter=orders.new&max-deliver=1"];
    world.nex(&[&["devrun", service.to_str().unwrap(), &nats_url], &flags[..]].concat()).expect(0);
    let logs = world.start(&["logs", "--workload_name", "taker"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    world.nex(&["call", "orders.new", "tea"]).expect(0);
    logs.waits_for("got tea");
    world.nex(&["call", "orders.new", "bad tea"]).expect(0);
    world.eventually("it is given up", || dead(&world).len() == 1);
    world.nex(&["dead", "ls"]).expect(0).says(&["taker", "no bad tea"]);
    world.nex(&["describe", "taker"]).expect(0).says(&["stream:ORDERS", "active", "given up after 1 attempts: no bad tea"]);
    world.nex(&["dead", "redrive", "--all"]).expect(1).says(&["no bad tea", "1 failed and stay"]);
    let file = service.to_str().unwrap();
    world.file("nex.toml", format!("[workloads.taker]\nfile = '{file}'\ntriggers = ['orders.new']\n"));
    world.nex(&["apply"]).expect(2).says(&["is not called by subjects", "have streams, buckets or schedules call it"]);
}

#[test]
fn an_image_is_a_consumer_and_asked_on_time() {
    if !nix::unistd::geteuid().is_root() {
        nex_testkit::skip!("an_image_is_a_consumer_and_asked_on_time", "images need root");
    }
    let world = World::new();
    let _up = world.up(&[]);
    stream(&world, "ORDERS", "orders.>");
    let program = std::fs::read(dist_binary("echo-service")).unwrap();
    let layer = ImageLayer::default().file("bin/echo-service", 0o755, &program).finish();
    let image = Image::new(vec![layer], &serde_json::json!({"Entrypoint": ["/bin/echo-service"]}));
    let file = world.file("taker.tar", image.docker_archive());
    let nats_url = format!("NATS_URL={}", world.url());
    let triggers = ["--trigger", "stream:ORDERS?filter=orders.new&max-deliver=1", "--trigger", "every:1s?dead=none"];
    let logs = world.start(&["logs", "--workload_name", "taker"]);
    world.eventually("the tail listens", || logs.err().contains("Watching"));
    world.nex(&[&["devrun", &file, &nats_url, "--name", "taker"], &triggers[..]].concat()).expect(0);
    world.nex(&["call", "orders.new", "tea"]).expect(0);
    logs.waits_for("got tea");
    world.nex(&["call", "orders.new", "bad tea"]).expect(0);
    world.eventually("it is given up", || dead(&world).len() == 1);
    world.nex(&["dead", "ls"]).expect(0).says(&["taker", "no bad tea"]);
    world.eventually("it is asked each second", || {
        let told = world.nex(&["describe", "taker", "--json"]).expect(0).json();
        told[0]["trigger_states"][1]["done"].as_u64() >= Some(2)
    });
    // What it does is its own: a message is asked of it once more, and that is said.
    let number = dead(&world)[0]["number"].to_string();
    world.nex(&["replay", &number]).expect(0).says(&["no bad tea", "its own, which are not seen", "The same as on record"]);
}

#[test]
fn what_is_wrong_with_a_trigger_is_said_before_anything_is_sent() {
    let world = World::new();
    let file = world.file("f.js", "() => 1");
    for (trigger, expected) in [
        ("orders.new", "subject:orders.new"),
        ("stream:ORDERS?filter=a..b", "filter=a..b cannot be"),
        ("cron:61 * * * *", "five fields"),
        ("cron:0 0 31 2 *", "never comes"),
        ("every:10ms", "whole seconds"),
        ("at:tomorrow", "a time such as"),
    ] {
        world.nex(&["devrun", &file, "--trigger", trigger]).expect(2).says(&[expected]);
    }
}

//! Two nodes on one NATS: who takes what, and what becomes of the copy on the other.

use nex_testkit::guest;

use crate::running::Running;
use crate::world::World;

fn node(world: &World, name: &str, more: &[&str]) -> Running {
    let tag = format!("node_name={name}");
    world.node_up(&[&["--state-dir", name, "--tag", &tag], more].concat())
}

fn id_of(world: &World, name: &str) -> String {
    let nodes = world.nodes();
    let found = nodes.iter().find(|node| node["tags"]["node_name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {nodes:?}"))["node_id"].as_str().unwrap().to_owned()
}

#[test]
fn devrun_again_removes_the_copy_on_the_other_node() {
    let world = World::with_nats();
    let first = node(&world, "first", &[]);
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script]).expect(0);
    let second = node(&world, "second", &[]);
    assert_eq!(world.nodes().len(), 2);
    // The emptier node takes it.
    let first_id = id_of(&world, "first");
    let ended = world.nex(&["devrun", &script]).expect(0);
    ended.says(&[&format!("already exists on node {first_id}"), &id_of(&world, "second")]);
    let running = world.ps();
    assert_eq!((running.len(), &running[0]["node_name"]), (1, &"second".into()), "{running:?}");
    world.nex(&["call", "echojs", "hi"]).expect(0).says(&["hi"]);
    for node in [first, second] {
        node.interrupt().expect(0);
    }
}

#[test]
fn copies_are_spread_and_nodes_are_chosen_by_their_tags() {
    let world = World::with_nats();
    let _nodes = [node(&world, "first", &["--tag", "region=eu"]), node(&world, "second", &["--tag", "region=us"])];
    let script = world.file("echo.js", guest::ECHO_JS);
    let on = |name: &str| world.ps().iter().filter(|workload| workload["node_name"] == name).count();
    world.nex(&["devrun", &script, "--tag", "region=eu"]).expect(0);
    assert_eq!((on("first"), on("second")), (1, 0));
    world.nex(&["devrun", &script, "--tag", "region=mars"]).expect(4).says(&["region", "still runs"]);
    world.nex(&["devrun", &script, "--tag", "region"]).expect(2).says(&["KEY=VALUE"]);
    world.nex(&["devrun", &script, "--copies", "2", "--spread"]).expect(0);
    assert_eq!((on("first"), on("second")), (1, 1));
    world.nex(&["devrun", &script, "--copies", "3", "--spread"]).expect(2).says(&["no node left for another copy", "still runs"]);
    world.nex(&["devrun", &script, "--copies", "4"]).expect(0);
    assert_eq!(world.ps().len(), 4);
    world.nex(&["devrun", &script, "--replicas", "1"]).expect(0);
    assert_eq!(world.ps().len(), 1);
    let toml = "project = 'p'\n[workloads.two]\nfile = 'echo.js'\ncopies = 2\nspread = true\ntags = { region = 'us' }\n";
    world.file("nex.toml", toml);
    world.nex(&["apply"]).expect(2).says(&["no node left for another copy"]);
    world.file("nex.toml", toml.replace("copies = 2\n", ""));
    world.nex(&["apply"]).expect(0);
    assert_eq!(world.ps().iter().filter(|it| it["name"] == "two" && it["node_name"] == "second").count(), 1);
}

#[test]
fn copies_on_two_nodes_share_the_calls_and_stop_by_one_name() {
    let world = World::with_nats();
    let _nodes = [node(&world, "first", &[]), node(&world, "second", &[])];
    let script = world.file("echo.js", guest::ECHO_JS);
    for _ in 0..2 {
        world.nex(&["devrun", &script, "--no-stop"]).expect(0);
    }
    let on = |name: &str| world.ps().iter().filter(|workload| workload["node_name"] == name).count();
    assert_eq!((on("first"), on("second")), (1, 1), "the emptier node wins");
    world.block_on(async {
        let client = async_nats::connect(world.url()).await.unwrap();
        let mut replies = client.subscribe("replies").await.unwrap();
        for _ in 0..10 {
            client.publish_with_reply("echojs", "replies", "x".into()).await.unwrap();
        }
        client.publish("replies", "end".into()).await.unwrap();
        for count in 0.. {
            let message = futures::StreamExt::next(&mut replies).await.unwrap();
            if count == 10 {
                // Ten answers and our own mark: nothing was answered twice.
                break;
            }
            assert!(!message.payload.is_empty());
        }
    });
    let ended = world.nex(&["stop", "echojs"]).expect(0);
    assert_eq!(ended.text().matches("✅ Workload 'echojs' stopped.").count(), 2, "{ended:?}");
    assert!(world.ps().is_empty());
}

#[test]
fn a_trigger_of_another_namespace_is_refused_whichever_node_has_it() {
    let world = World::with_nats();
    let _nodes = [node(&world, "first", &["--tag", "region=eu"]), node(&world, "second", &["--tag", "region=us"])];
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.*", "--tag", "region=eu"]).expect(0);
    let taken = format!("overlaps with one of another namespace on node {}", id_of(&world, "first"));
    let shop = ["--namespace", "shop"];
    let refused = |args: &[&str]| world.nex(&[args, &shop].concat()).expect(3).says(&["fn.echo", &taken, "next: "]).text();
    let elsewhere = ["devrun", &script, "--trigger_subject", "fn.echo", "--tag", "region=us"];
    refused(&elsewhere);
    world.file("nex.toml", "[workloads.echo]\nfile = 'echo.js'\ntriggers = ['fn.echo']\ntags = { region = 'us' }\n");
    refused(&["apply"]);
    assert_eq!(world.nex(&["ps", "-A", "--json"]).expect(0).json().as_array().unwrap().len(), 1, "nothing was started");
    world.nex(&[&elsewhere[..2], &["--trigger_subject", "shop.echo"], &shop].concat()).expect(0);
    // It is free again when the other one is gone.
    world.nex(&["stop", "echojs"]).expect(0);
    world.nex(&[&elsewhere[..], &shop].concat()).expect(0);
}

#[test]
fn when_nobody_bids_every_node_says_why() {
    let world = World::with_nats();
    let _nodes =
        [node(&world, "only-native", &["--workload-types", "native"]), node(&world, "only-wasm", &["--workload-types", "wasm"])];
    let script = world.file("echo.js", guest::ECHO_JS);
    let ended = world.nex(&["devrun", &script]).expect(4);
    let (native, wasm) = (id_of(&world, "only-native"), id_of(&world, "only-wasm"));
    ended.says(&["JavaScript, run as v8", "no node takes this workload", &native, &wasm, "v8", "next: "]);

    // One leaves, the other drains.
    let module = world.file("echo.wasm", guest::assemble(guest::ECHO_WAT));
    world.nex(&["devrun", &module]).expect(0);
    world.nex(&["lameduck", &wasm]).expect(0).says(&["Command to enter lame duck mode issued to"]);
    world.nex(&["node", "ls"]).expect(0).says(&[&format!("{wasm}*")]);
    let ended = world.nex(&["devrun", &module]).expect(4);
    ended.says(&[&native, "only-wasm", "it is in lame duck mode"]);
    world.nex(&["call", "echowasm", "still served"]).expect(0).says(&["still served"]);
}

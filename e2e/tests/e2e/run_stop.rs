//! `nex run` and `nex stop`: a named artifact on a named node, and who may end it.

use nex_testkit::guest;
use nkeys::KeyPair;

use crate::world::World;

/// A world with a running node and an artifact in the bucket; the artifact's address and the node's id.
fn ready(world: &World) -> (String, String) {
    let script = world.file("echo.js", guest::ECHO_JS);
    let deployed = world.nex(&["devrun", &script, "--json"]).expect(0).json();
    world.nex(&["stop", "echojs"]).expect(0);
    (deployed["location"].as_str().unwrap().to_owned(), deployed["node_id"].as_str().unwrap().to_owned())
}

fn other_issuer(world: &World) -> String {
    world.file("other.nk", KeyPair::new_account().seed().unwrap())
}

#[test]
fn an_uploaded_artifact_runs_on_the_node_named() {
    let world = World::new();
    let _up = world.up(&[]);
    let (url, node) = ready(&world);
    assert!(url.starts_with("nats://NEXCLIFILES/default/echojs/"), "{url}");
    let ended =
        world.nex(&["run", &url, &node, "A=b", "--name", "mine", "--type", "v8", "--trigger_subject", "fn.mine"]).expect(0);
    ended.says(&["🚀 Workload 'mine' accepted. You can now refer to this workload with ID: ", &node]);
    world.nex(&["call", "fn.mine", "hi"]).expect(0).says(&["fn.mine", "hi"]);
    let id = world.ps()[0]["id"].as_str().unwrap().to_owned();
    world.nex(&["node", "info", &node]).expect(0).says(&[&id, "mine", "🟢"]);
    world.nex(&["node", "probe", "--workload", "mine"]).expect(0).says(&["Discovered Workloads", &id]);
    world.nex(&["node", "probe", "--workload", "yours"]).expect(0).says(&["No workloads matched"]);

    let name = world.nodes()[0]["tags"]["node_name"].as_str().unwrap().to_owned();
    world.nex(&["run", &url, &name, "--name", "named", "--type", "v8"]).expect(0).says(&["'named' accepted", &node]);
    world.nex(&["run", &url, "no-such-node", "--name", "m"]).expect(2).says(&["neither the id nor the name", "nex node ls"]);

    let missing = ["run", "nats://NEXCLIFILES/missing", &node, "--name", "m", "--type", "v8"];
    world.nex(&missing).expect(1).says(&["NEXCLIFILES/missing", "error: "]);
    let nowhere = KeyPair::new_server().public_key();
    world.nex(&["run", &url, &nowhere, "--name", "m", "--type", "v8"]).expect(1).says(&[&nowhere, "next: "]);
    world.nex(&["run", "http://example.com/x", &node, "--name", "m"]).expect(2).says(&["nats://"]);
    world.nex(&["run", &url, &node, "--name", "not a name"]).expect(2).says(&["not a name"]);
}

#[test]
fn host_services_may_be_on_another_nats() {
    let (world, elsewhere) = (World::new(), World::with_nats());
    let allowed = format!(r#"["{}", "nats://127.0.0.1:1"]"#, elsewhere.url());
    let config = format!(r#"{{"no_sandbox": true, "workload_types": ["v8"], "allow_nats_urls": {allowed}}}"#);
    let config = world.file("allowing.json", config);
    let _up = world.up(&["--config", &config]);
    let script = world.file("count.js", guest::KV_COUNTER_JS);
    world.nex(&["devrun", &script, "--hs_url", &elsewhere.url(), "--trigger_url", &world.url()]).expect(0);
    for count in 1..=2 {
        world.nex(&["call", "countjs", ""]).expect(0).says(&[&format!(r#"{{"count":{count}}}"#)]);
    }
    let buckets = |world: &World| {
        let client = world.client();
        world.block_on(async {
            let jetstream = async_nats::jetstream::new(client);
            futures::TryStreamExt::try_collect::<Vec<_>>(jetstream.stream_names()).await.unwrap()
        })
    };
    assert!(buckets(&elsewhere).iter().any(|name| name.starts_with("KV_")), "{:?}", buckets(&elsewhere));
    assert!(!buckets(&world).iter().any(|name| name.starts_with("KV_")), "{:?}", buckets(&world));
    // As in 0.2.7, triggers are where the host services are, unless they have a connection of their own.
    world.nex(&["devrun", &script, "--hs_url", &elsewhere.url()]).expect(0);
    elsewhere.nex(&["call", "countjs", ""]).expect(0).says(&[r#"{"count":3}"#]);
    world.nex(&["call", "countjs", "", "--timeout", "500ms"]).expect(1).says(&["nothing listens on 'countjs'"]);
    let unreachable = world.nex(&["devrun", &script, "--hs_url", "nats://127.0.0.1:1", "--name", "lost"]);
    unreachable.expect(1).says(&["its own NATS connection cannot be made"]);
    let unlisted = world.nex(&["devrun", &script, "--hs_url", "nats://127.0.0.1:2", "--name", "lost"]);
    unlisted.expect(3).says(&["not among those that this node connects workloads to", "allow_nats_urls"]);
}

#[test]
fn a_node_with_a_list_of_issuers_takes_no_others() {
    let world = World::with_nats();
    let script = world.file("echo.js", guest::ECHO_JS);
    let trusted = KeyPair::new_account();
    let config = format!(r#"{{"no_sandbox": true, "workload_types": ["v8"], "valid_issuers": ["{}"]}}"#, trusted.public_key());
    world.file("config.json", config);
    let _node = world.node_up(&[]);
    world.nex(&["devrun", &script]).expect(3).says(&["invalid workload issuer: A"]);
    let node = world.node_id();
    let url = world.artifact("echojs");
    let run = ["run", &url, &node, "--name", "mine", "--type", "v8", "--issuer"];
    world.nex(&[&run[..], &[&other_issuer(&world)]].concat()).expect(3).says(&["invalid workload issuer: A"]);
    let issuer = world.file("trusted.nk", trusted.seed().unwrap());
    world.nex(&[&run[..], &[&issuer]].concat()).expect(0).says(&["'mine' accepted"]);
    let not_a_seed = world.file("broken.nk", "nothing");
    world.nex(&[&run[..], &[&not_a_seed]].concat()).expect(1).says(&["holds no nkey seed"]);
}

#[test]
fn only_the_issuer_stops_and_by_id_or_name() {
    let world = World::new();
    let _up = world.up(&[]);
    let (url, node) = ready(&world);
    let start = |name: &str| {
        let ended = world.nex(&["run", &url, &node, "--name", name, "--type", "v8", "--json"]).expect(0).json();
        ended["id"].as_str().unwrap().to_owned()
    };
    let (one, two) = (start("one"), start("two"));
    let stranger = other_issuer(&world);
    let denied = "the only entity allowed to terminate a workload is the issuer that originally started it";
    world.nex(&["stop", &node, &one, "--name", "one", "--issuer", &stranger]).expect(3).says(&[denied]);
    world.nex(&["stop", "one", "--issuer", &stranger]).expect(3).says(&[denied]);
    let misnamed = world.nex(&["stop", &node, &one, "--name", "two"]).expect(3);
    misnamed.says(&["stop claims subject does not match original start claims subject"]);
    assert_eq!(world.ps().len(), 2);

    world.nex(&["stop", &node, &one, "--name", "one"]).expect(0).says(&["✅ Workload 'one' stopped."]);
    world.nex(&["call", "one", "x", "--timeout", "1s"]).expect(1).says(&["nothing listens on 'one'"]);
    world.nex(&["stop", &node, &one, "--name", "one"]).expect(1).says(&["No such workload"]);
    world.nex(&["stop", &two]).expect(0).says(&["✅ Workload 'two' stopped.", &two]);
    world.nex(&["stop", "two"]).expect(1).says(&["No such workload", "nex ps"]);
    start("three");
    let stopped = world.nex(&["stop", "three", "--json"]).expect(0).json();
    assert_eq!((&stopped[0]["stopped"], &stopped[0]["name"]), (&true.into(), &"three".into()));
    assert!(world.ps().is_empty());
    // Of several, one that is misspelt stops none.
    let four = start("four");
    start("five");
    world.nex(&["stop", "four", "fife"]).expect(1).says(&["nothing in namespace default is called 'fife'"]);
    assert_eq!(world.ps().len(), 2);
    let name = world.nodes()[0]["tags"]["node_name"].as_str().unwrap().to_owned();
    let six = start("six");
    world.nex(&["stop", &name, &six]).expect(0).says(&["'six' stopped."]).says_not("'four'");
    world.nex(&["stop", &four, "four", "five"]).expect(0).says(&["'four' stopped.", "'five' stopped."]);
}

#[test]
fn a_node_in_lame_duck_mode_takes_nothing_more_and_says_so() {
    let world = World::new();
    let _up = world.up(&[]);
    let (url, node) = ready(&world);
    let script = world.file("echo.js", guest::ECHO_JS);
    // With nothing to run it would end.
    world.nex(&["devrun", &script]).expect(0);
    world.nex(&["lameduck", &node]).expect(0).says(&["Command to enter lame duck mode issued to", &node]);
    world.nex(&["lameduck", &node]).expect(0);
    world.nex(&["devrun", &script, "--no-stop"]).expect(4).says(&[&node, "it is in lame duck mode"]);
    let run = world.nex(&["run", &url, &node, "--name", "late", "--type", "v8"]);
    run.expect(1).says(&["Node is in lame duck mode. Workload deploy request denied"]);
    let nowhere = KeyPair::new_server().public_key();
    world.nex(&["lameduck", &nowhere]).expect(1).says(&[&nowhere]);
}

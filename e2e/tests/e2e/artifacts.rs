//! What lies in the bucket for uploads: a version a file, apart by namespace, listed, removed, and given room.

use async_nats::jetstream;
use nex_testkit::NatsServer;
use serde_json::Value;

use crate::world::World;

fn urls(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|artifact| artifact["url"].as_str().unwrap()).collect()
}

#[test]
fn a_file_of_one_namespace_is_never_anothers() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("same.js", "() => 'ours'");
    world.nex(&["devrun", &file, "--trigger_subject", "fn.ours"]).expect(0);
    let ours = world.artifact("samejs");
    world.file("same.js", "() => 'theirs'");
    world.nex(&["devrun", &file, "--trigger_subject", "fn.theirs", "--namespace", "theirs"]).expect(0);
    assert_eq!(world.artifact("samejs"), ours, "each namespace lists its own");
    let all = world.nex(&["artifact", "ls", "--all", "--json"]).expect(0).json();
    assert_eq!(urls(&all).len(), 2);
    world.nex(&["artifact", "ls", "samejs"]).expect(0).says(&["Artifacts", "samejs", "default"]).says_not("theirs");

    let ours_again = ["run", &ours, &world.node_id(), "--name", "again", "--type", "v8", "--trigger_subject", "fn.again"];
    world.nex(&ours_again).expect(0);
    world.nex(&["call", "fn.again", ""]).expect(0).says(&["ours"]);
}

#[test]
fn what_runs_and_what_is_newest_stays() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("v.js", "() => 1");
    world.nex(&["devrun", &file]).expect(0);
    let first = world.artifact("vjs");
    world.file("v.js", "() => 2");
    world.nex(&["devrun", &file, "--no-stop"]).expect(0);
    world.file("v.js", "() => 3");
    world.nex(&["devrun", &file, "--no-stop"]).expect(0);
    world.nex(&["artifact", "rm", &first]).expect(2).says(&["is what 'vjs'", "next: stop that first", "--force"]);
    world.nex(&["artifact", "gc", "--older-than", "1ms"]).expect(0).says(&["0 of 3 artifacts"]);

    world.nex(&["stop", "vjs"]).expect(0);
    world.nex(&["artifact", "gc"]).expect(0).says(&["0 of 3 artifacts (0 bytes) removed"]);
    let gc = ["artifact", "gc", "--older-than", "1ms", "--dry-run", "--json"];
    let would = world.nex(&gc).expect(0).json();
    assert_eq!(urls(&would["removed"]).len(), 2, "{would}");
    assert_eq!(urls(&world.nex(&["artifact", "ls", "--json"]).expect(0).json()).len(), 3, "nothing was removed");
    world.nex(&["artifact", "gc", "--older-than", "1ms"]).expect(0).says(&["2 of 3 artifacts", "removed"]);
    let left = world.artifact("vjs");
    assert_ne!(left, first);
    world.nex(&["artifact", "rm", &left]).expect(0).says(&["Removed nats://"]);
    world.nex(&["artifact", "rm", &left]).expect(1).says(&["there is no artifact"]);
    world.nex(&["artifact", "ls"]).expect(0).says(&["No artifacts of namespace default"]);
    world.nex(&["artifact", "ls", "--bucket", "NOTHING"]).expect(1).says(&["there is no object store bucket NOTHING"]);
}

#[test]
fn a_full_bucket_is_given_room_and_never_lost() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = |text: &str| format!("() => '{text}' // {}", "x".repeat(60_000));
    let file = world.file("large.js", script("one"));
    world.nex(&["devrun", &file, "--bucketmaxbytes", "100000"]).expect(0);
    world.file("large.js", script("two"));
    world.nex(&["devrun", &file, "--bucketmaxbytes", "90000"]).expect(1).says(&[
        "is full",
        "nex artifact gc",
        "--bucketmaxbytes",
    ]);
    world.nex(&["call", "largejs", ""]).expect(0).says(&["one"]);
    world.nex(&["devrun", &file]).expect(0).says(&["may hold"]);
    world.nex(&["call", "largejs", ""]).expect(0).says(&["two"]);
    assert_eq!(urls(&world.nex(&["artifact", "ls", "--json"]).expect(0).json()).len(), 2);
}

#[test]
fn a_bucket_with_replicas_goes_on_without_its_leader() {
    let mut world = World::new();
    let mut servers = world.block_on(NatsServer::start_cluster());
    let all: Vec<String> = servers.iter().map(NatsServer::url).collect();
    world.set("NATS_URL", &all.join(","));
    let _node = world.node_up(&[]);
    let script = world.file("one.js", "() => 'one'");
    let deploy = ["devrun", script.as_str(), "--bucket-replicas", "3"];
    world.eventually("the cluster has a leader", || world.nex(&deploy).code == 0);
    let leader = world.block_on(async {
        let client = async_nats::connect(all.as_slice()).await.unwrap();
        let stream = jetstream::new(client).get_stream("OBJ_NEXCLIFILES").await.unwrap();
        let info = stream.get_info().await.unwrap();
        assert_eq!(info.config.num_replicas, 3);
        info.cluster.unwrap().leader.unwrap()
    });
    servers[leader.trim_start_matches('s').parse::<usize>().unwrap()].kill9();
    let other = world.file("two.js", "() => 'two'");
    world.eventually("another leads", || world.nex(&["devrun", &other]).code == 0);
    world.eventually("both answer", || ["onejs", "twojs"].iter().all(|it| world.nex(&["call", it, ""]).code == 0));
    world.nex(&["artifact", "ls"]).expect(0).says(&["onejs", "twojs"]);
}

/// Bytes of the stream in which the bucket keeps its files.
fn stored(world: &World) -> u64 {
    let client = world.client();
    world.block_on(async {
        match jetstream::new(client).get_stream("OBJ_NEXCLIFILES").await {
            Ok(mut stream) => stream.info().await.map_or(0, |info| info.state.bytes),
            Err(_not_made_yet) => 0,
        }
    })
}

#[test]
fn an_upload_that_was_killed_goes_on_where_it_was() {
    const LARGE: usize = 128 << 20;
    let world = World::new();
    let _up = world.up(&[]);
    // One that the machine finished before it could be killed says nothing: the next one is another file.
    let resumed = (0..10).find_map(|number| {
        let mut content = format!("#!/bin/sh\n# {number}\nexec sleep 1000\n").into_bytes();
        content.resize(LARGE, b'#');
        let (file, before) = (world.file("large.sh", &content), stored(&world));
        let upload = world.start(&["devrun", &file, "--name", "large"]);
        world.eventually("some of it is there", || stored(&world) > before + (4 << 20));
        upload.kill9();
        let sent = stored(&world) - before;
        let again = world.nex(&["devrun", &file, "--name", "large"]).expect(0);
        (sent < LARGE as u64).then_some(again.stderr)
    });
    let said = resumed.expect("an upload is killed before it is done");
    let by_the_first = said.split(" bytes, ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(by_the_first.is_some_and(|bytes| (1 << 20..LARGE).contains(&bytes)), "{said}");
    world.eventually("it runs", || world.ps().iter().any(|it| it["name"] == "large" && it["state"] == "running"));
}

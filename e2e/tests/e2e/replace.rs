//! A workload deployed again: the new copy runs before the old one goes, and a copy that cannot run replaces nothing.

use futures::StreamExt as _;
use serde_json::Value;

use crate::caller::Callers;
use crate::world::World;

/// A service that runs until it is told to go.
const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

fn ids(world: &World) -> Vec<Value> {
    let mut ids: Vec<Value> = world.ps().iter().map(|workload| workload["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    ids
}

#[test]
fn a_redeploy_that_fails_leaves_the_copy_that_ran() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "() => 'one'");
    world.nex(&["devrun", &file]).expect(0);
    let before = ids(&world);
    let old = before[0].as_str().unwrap().to_owned();

    world.file("greet.js", "() => {");
    let still = ["still runs", &old];
    world.nex(&["devrun", &file]).expect(1).says(&["SyntaxError"]).says(&still);
    world.file("greet.js", "() => 'two'");
    world.nex(&["devrun", &file, "--machine", "huge"]).expect(1).says(&["no machine class 'huge'"]).says(&still);
    world.nex(&["devrun", &file, "--trigger_subject", "$SYS.x"]).expect(3).says(&["deny list"]).says(&still);
    world.nex(&["devrun", &file, "--type", "wasm"]).expect(1).says(&["error: "]).says(&still);
    world.nex(&["devrun", &file, "--type", "oci"]).expect(2).says(&["is no OCI image"]);
    world.nex(&["call", "greetjs", ""]).expect(0).says(&["one"]);
    assert_eq!(ids(&world), before);

    let ended = world.nex(&["devrun", &file, "--json"]).expect(0).json();
    assert_eq!((&ended["replaced"][0], ended["replaced"].as_array().unwrap().len()), (&before[0], 1), "{ended}");
    world.nex(&["call", "greetjs", ""]).expect(0).says(&["two"]);
    assert_eq!(ids(&world), [ended["id"].clone()]);
}

#[test]
fn as_many_copies_run_after_it_as_before() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("sleeper.sh", SLEEPER);
    world.nex(&["devrun", &file]).expect(0);
    world.nex(&["devrun", &file, "--no-stop"]).expect(0);
    let before = ids(&world);
    let told: Vec<String> = before.iter().map(|id| format!("Replaced {}", id.as_str().unwrap())).collect();
    world.nex(&["devrun", &file]).expect(0).says(&told.iter().map(String::as_str).collect::<Vec<_>>());
    let after = ids(&world);
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
}

#[test]
fn what_another_issuer_runs_is_not_counted_and_not_touched() {
    let mut world = World::new();
    let _up = world.up(&[]);
    let file = world.file("sleeper.sh", SLEEPER);
    world.nex(&["devrun", &file]).expect(0);
    let theirs = ids(&world);
    let home = world.text_path("other");
    std::fs::create_dir(&home).unwrap();
    let ours = world.text_path("home");
    world.set("XDG_CONFIG_HOME", &format!("{ours}/config"));
    world.set("HOME", &home);
    world.nex(&["devrun", &file]).expect(0).says_not("still runs");
    world.nex(&["devrun", &file]).expect(0);
    let both = ids(&world);
    assert!(both.len() == 2 && both.contains(&theirs[0]), "{both:?} {theirs:?}");
}

#[test]
fn a_service_that_ends_at_once_is_a_failed_deploy_with_its_last_lines() {
    let world = World::new();
    let _up = world.up(&[]);
    let crash = world.file("crash.sh", "#!/bin/sh\necho all is well\necho no database >&2\nexit 7\n");
    let told = ["ended with exit code 7", "its last lines:", "no database"];
    for more in [&[][..], &["--essential"], &["--settle", "30s"]] {
        let ended = world.nex(&[&["devrun", &crash], more].concat()).expect(1);
        ended.says(&told).says_not("all is well").says_not("accepted");
        assert_eq!(world.ps(), Vec::<Value>::new(), "{more:?}");
    }
    let node = world.node_id();
    let url = world.artifact("crashsh");
    let run = ["run", &url, &node, "--name", "crash"];
    world.nex(&run).expect(1).says(&told);
    world.nex(&[&run[..], &["--settle", "none"]].concat()).expect(0).says(&["accepted"]);

    let silent = world.file("silent.sh", "#!/bin/sh\nexit 1\n");
    world.nex(&["devrun", &silent]).expect(1).says(&["ended with exit code 1", "it wrote nothing"]);
    let job = world.file("job.sh", "#!/bin/sh\nexit 0\n");
    world.nex(&["devrun", &job]).expect(0).says(&["has ended with exit code 0"]).says_not("accepted");
    assert_eq!(world.nex(&["devrun", &job, "--json"]).expect(0).json()["exit_code"], 0);
    world.nex(&["devrun", &job, "--settle", "2m"]).expect(2).says(&["up to a minute"]);
}

#[test]
fn what_has_ended_is_seen_with_its_code_and_its_last_lines() {
    let world = World::new();
    let _up = world.up(&[]);
    let crash = world.file("crash.sh", "#!/bin/sh\necho starting\necho no database >&2\nexit 7\n");
    world.nex(&["devrun", &crash, "--settle", "none"]).expect(0);
    world.eventually("it has ended", || world.ps().is_empty());
    world.nex(&["ps"]).expect(0).says(&["No workloads", "1 ended lately: nex ps --all"]);
    world.nex(&["ps", "--all"]).expect(0).says(&["Ended lately", "crashsh", "7", "no database"]);
    let all = world.nex(&["ps", "--all", "crashsh", "--json"]).expect(0).json();
    assert_eq!((&all[0]["state"], &all[0]["code"], &all[0]["last_line"]), (&"ended".into(), &7.into(), &"no database".into()));
    world.nex(&["logs", "crashsh"]).expect(1).says(&["ended", "exit code 7", "next: see what it said", "--tail"]);
    world.nex(&["logs", "crashsh", "--tail", "20"]).expect(0).says(&["starting", "no database"]);
    world.nex(&["ps", "--all", "--namespace", "other"]).expect(0).says(&["No workloads"]).says_not("crashsh");

    // One that is started again and again says how it ended last.
    world.nex(&["devrun", &crash, "--settle", "none", "--essential"]).expect(0);
    world.eventually("it was started again", || world.ps().first().is_some_and(|it| it["restarts"].as_u64() > Some(0)));
    assert_eq!(world.ps()[0]["last_exit"]["code"], 7);
    world.nex(&["ps"]).expect(0).says(&[", exit 7"]);
    let talker = world.file("talker.sh", "#!/bin/sh\necho one\necho two\nexec sleep 1000\n");
    world.nex(&["devrun", &talker]).expect(0);
    world.nex(&["logs", "talkersh", "--tail", "5", "--json"]).expect(0).says(&["\"one\"", "\"two\""]);
    world.nex(&["logs", "talkersh", "--tail", "1"]).expect(0).says(&["two"]).says_not("one");
    world.nex(&["logs", "nosuch"]).expect(1).says(&["nothing in namespace default is called 'nosuch'", "crashsh, talkersh"]);
    world.nex(&["logs", "nosuch", "--tail", "5"]).expect(1).says(&["what runs: crashsh, talkersh"]);
}

#[test]
fn a_service_that_ends_at_once_replaces_nothing() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &file]).expect(0);
    let before = ids(&world);
    for (content, why) in
        [("#!/bin/sh\necho no database >&2\nexit 7\n", "no database"), ("#!/bin/sh\nexit 0\n", "nothing to replace")]
    {
        world.file("service.sh", content);
        world.nex(&["devrun", &file]).expect(1).says(&[why, "still runs", before[0].as_str().unwrap()]);
        assert_eq!(ids(&world), before);
    }
}

#[test]
fn an_uploaded_artifact_replaces_the_copy_that_runs() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "() => 'one'");
    world.nex(&["devrun", &file]).expect(0);
    let (node, before) = (world.node_id(), ids(&world));
    let url = world.artifact("greetjs");
    let run = ["run", &url, &node, "--name", "greetjs", "--type", "v8"];
    let replace = |more: &[&str]| world.nex(&[&run[..], &["--replace"], more].concat());
    replace(&["--machine", "huge"]).expect(1).says(&["no machine class 'huge'", "still runs"]);
    assert_eq!(ids(&world), before);
    replace(&[]).expect(0);
    let after = ids(&world);
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    world.nex(&run).expect(0);
    assert_eq!(ids(&world).len(), 2, "nothing is replaced unless it is asked for");
}

#[test]
fn no_call_is_lost_during_ten_redeploys() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("busy.js", "() => 'reply 0'");
    world.nex(&["devrun", &file]).expect(0);
    let callers = Callers::start(&world, "busyjs");
    for version in 1..=10 {
        let before = callers.answered();
        world.file("busy.js", format!("() => 'reply {version}'"));
        world.nex(&["devrun", &file]).expect(0);
        world.eventually("calls go on", || callers.answered() > before + 50);
    }
    callers.all_were_answered(&world);
    world.nex(&["call", "busyjs", ""]).expect(0).says(&["reply 10"]);
    assert_eq!(ids(&world).len(), 1);
}

#[test]
fn the_old_copy_answers_the_calls_it_has_taken_before_it_goes() {
    let world = World::new();
    let _up = world.up(&[]);
    // Longer than the 5 s that a workload has to end by itself.
    let slow = "async () => {
        await hostServices.messaging.publish('slow.began', new Uint8Array(1));
        const end = Date.now() + 7000;
        while (Date.now() < end);
        return 'slow one';
    }";
    let file = world.file("slow.js", slow);
    world.nex(&["devrun", &file, "--call-timeout", "20s"]).expect(0);
    let client = world.client();
    let mut began = world.block_on(client.subscribe("slow.began")).unwrap();
    world.block_on(client.flush()).unwrap();
    let call = world.start(&["call", "slowjs", "", "--timeout", "30s"]);
    world.block_on(began.next()).expect("it is called");
    world.file("slow.js", "() => 'quick'");
    world.nex(&["devrun", &file, "--call-timeout", "20s"]).expect(0);
    call.waits_for("slow one");
    world.nex(&["call", "slowjs", ""]).expect(0).says(&["quick"]);
}

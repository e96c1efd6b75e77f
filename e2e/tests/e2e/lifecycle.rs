//! The end of a node: its workloads run on for the next process, drain, or are forgotten; and its configuration read again.

use nix::sys::signal::Signal;

use crate::caller::Callers;
use crate::crash::running_on;
use crate::leftovers::Watch;
use crate::world::World;

const SLEEPER: &str = "#!/bin/sh\necho began\nwhile :; do sleep 0.2; done\n";

#[test]
fn what_runs_goes_on_while_a_supervisor_starts_the_node_again_and_ends_when_somebody_stops_it() {
    let world = World::with_nats();
    let node = world.node_up(&["--on-terminate", "leave"]);
    let mut watch = Watch::new(node.pid());
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service, "--restart", "always"]).expect(0);
    let before = world.ps();
    watch.look();
    node.signal(Signal::SIGTERM);
    node.ends().expect(0).says(&["SIGTERM received, leaving the workloads to the next process", "left=1"]);
    let (left, buses) = running_on(&watch, &world);
    assert_eq!((left.len(), buses.len()), (1, 1), "the service and its bus");
    let node = world.node_up(&["--on-terminate", "leave"]);
    assert_eq!(running_on(&watch, &world).0, left, "the same process");
    let after = world.ps();
    assert_eq!((&after[0]["id"], after[0]["restarts"].as_u64()), (&before[0]["id"], None));
    // Who stops the node means all of it.
    let state = world.text_path("state");
    world.nex(&["node", "stop", "--state-dir", &state]).expect(0).says(&["has stopped, and all that ran on it"]);
    node.ends().expect(0).says(&["SIGINT received, stopping"]);
    assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
    assert_eq!(world.processes(), []);
    world.nex(&["node", "stop", "--state-dir", &state]).expect(1).says(&["no node runs on the state directory"]);
    let node = world.node_up(&[]);
    assert_eq!(world.ps(), Vec::<serde_json::Value>::new());
    node.interrupt().expect(0);
}

#[test]
fn another_nex_takes_over_under_load_and_the_old_one_may_be_removed() {
    let world = World::with_nats();
    let node = world.node_up_in("old", &["--on-terminate", "leave"]);
    let mut watch = Watch::new(node.pid());
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service]).expect(0);
    let function = world.file("echo.js", "() => 'reply'");
    world.nex(&["devrun", &function, "--trigger", "subject:echo"]).expect(0);
    let callers = Callers::start(&world, "echo");
    world.eventually("calls are answered", || callers.answered() > 500);
    watch.look();
    node.signal(Signal::SIGTERM);
    node.ends().expect(0).says(&["left=2"]);
    std::fs::remove_dir_all(world.path("old")).unwrap();
    let left = running_on(&watch, &world);
    let seen = callers.answered();
    world.eventually("calls are answered while no node runs", || callers.answered() > seen + 500);
    let node = world.node_up_in("new", &["--on-terminate", "leave"]);
    world.eventually("both are taken over", || world.ps().iter().filter(|it| it["state"] == "running").count() == 2);
    assert_eq!(running_on(&watch, &world), left, "the same processes");
    let seen = callers.answered();
    world.eventually("calls are answered by the next one", || callers.answered() > seen + 500);
    callers.all_were_answered(&world);
    // What is deployed now comes from the new directory.
    let another = world.file("another.sh", SLEEPER);
    world.nex(&["devrun", &another]).expect(0);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_node_that_drains_ends_when_nothing_runs_any_more_or_at_its_deadline() {
    let world = World::with_nats();
    let node = world.node_up(&[]);
    let job = world.file("job.sh", "#!/bin/sh\nsleep 2\necho done\n");
    world.nex(&["devrun", &job, "--job"]).expect(0);
    world.nex(&["lameduck", &world.node_id()]).expect(0);
    node.ends().expect(0).says(&["entering lame duck mode", "the node has drained, stopping", "node stopped"]);

    let node = world.node_up(&[]);
    let ended = world.nex(&["ps", "--all", "--json"]).expect(0).json();
    assert_eq!((ended[0]["code"].as_i64(), ended.as_array().unwrap().len()), (Some(0), 1), "the job ran to its end: {ended}");
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service]).expect(0);
    let id = world.node_id();
    world.nex(&["lameduck", &id]).expect(0);
    world.nex(&["node", "ls"]).expect(0).says(&[&id]);
    world.nex(&["lameduck", &id, "--deadline", "300ms"]).expect(0);
    node.ends().expect(0).says(&["the node has drained, stopping", "workload ended: node shutdown"]);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_node_that_is_started_afresh_forgets_what_the_last_one_was_to_go_on_with() {
    let world = World::with_nats();
    let node = world.node_up(&[]);
    let mut watch = Watch::new(node.pid());
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service]).expect(0);
    watch.look();
    node.kill9();
    assert_eq!(running_on(&watch, &world).0.len(), 1);
    let node = world.node_up(&["--fresh"]);
    assert_eq!(running_on(&watch, &world).0, Vec::<String>::new());
    let all = world.nex(&["ps", "--all", "--json"]).expect(0).json();
    assert_eq!((&all[0]["name"], &all[0]["cause"]), (&"servicesh".into(), &"node_stopped".into()), "{all}");
    node.interrupt().expect(0);
}

#[test]
fn a_configuration_is_read_again_and_what_needs_a_new_start_is_named() {
    let world = World::with_nats();
    let script = world.file("echo.js", nex_testkit::guest::ECHO_JS);
    let config = |text: &str| world.file("node.json", text);
    let path = config(r#"{"no_sandbox": true, "workload_types": ["v8"]}"#);
    let node = world.node_up(&["--config", &path]);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.echo"]).expect(0);
    config(r#"{"no_sandbox": true, "workload_types": ["v8"], "deny_trigger_subjects": ["fn.>"], "machine_pool_size": 2}"#);
    node.signal(Signal::SIGHUP);
    node.waits_for("configuration read again; changed: deny_trigger_subjects");
    assert!(node.err().contains("count from the next start on: machine_pool_size"), "{}", node.err());
    world.nex(&["devrun", &script, "--trigger_subject", "fn.other"]).expect(3).says(&["deny list"]);
    world.nex(&["call", "fn.echo", "what runs goes on"]).expect(0);
    config("{");
    node.signal(Signal::SIGHUP);
    node.waits_for("the configuration is not read again");
    node.interrupt().expect(0);
}

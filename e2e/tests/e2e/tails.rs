//! `nex logs` and `nex events`: lines as they happen, of what was asked for.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::running::Running;
use crate::world::World;

/// A function that writes to both of its streams.
const TALKING: &str = "(subject, payload) => { const text = new TextDecoder().decode(payload);
    console.log('said ' + text); console.error('cried ' + text); return text; }";

fn tail(world: &World, args: &[&str]) -> Running {
    let tail = world.start(args);
    // The note comes once the subscription stands; a program that reads JSON gets no note.
    if !args.contains(&"--json") {
        tail.waits_for("Watching");
    }
    tail
}

#[test]
fn logs_come_live_and_only_those_asked_for() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("talk.js", TALKING);
    for name in ["one", "two"] {
        world.nex(&["devrun", &file, "--name", name]).expect(0);
    }
    let id = world.ps().iter().find(|workload| workload["name"] == "one").unwrap()["id"].as_str().unwrap().to_owned();
    let node = world.node_id();
    let name = world.nodes()[0]["tags"]["node_name"].as_str().unwrap().to_owned();
    world.nex(&["logs", "--node", "nobody"]).expect(2).says(&["neither the id nor the name", "nex node ls"]);
    let nobody = nkeys::KeyPair::new_server().public_key();
    world.nex(&["logs", "--node", &nobody, "--tail", "1"]).expect(1).says(&["does not answer", "nex node ls"]);
    let all = tail(&world, &["logs"]);
    let only_one = [
        tail(&world, &["logs", "one"]),
        tail(&world, &["logs", &id]),
        tail(&world, &["logs", "--workload_name", "one"]),
        tail(&world, &["logs", "--workload_id", &id, "--node", &node]),
        tail(&world, &["logs", "one", "--node", &name]),
    ];
    let errors = tail(&world, &["logs", "--level", "error"]);
    let others = [tail(&world, &["logs", "--namespace", "other"]), tail(&world, &["logs", "--node", &nobody])];
    world.nex(&["call", "two", "second"]).expect(0);
    all.waits_for("cried second");
    world.nex(&["call", "one", "first"]).expect(0);
    let said = all.waits_for("cried first");
    for part in ["said first", "said second", "one", "two"] {
        assert!(said.contains(part), "'{part}' in {said}");
    }
    for tail in only_one {
        let said = tail.waits_for("cried first");
        assert!(said.contains("said first") && !said.contains("second"), "{said}");
        tail.interrupt().expect(0);
    }
    let said = errors.waits_for("cried first");
    assert!(!said.contains("said"), "standard output is not an error: {said}");
    for tail in others {
        let ended = tail.interrupt().expect(0);
        assert_eq!(ended.text(), "");
    }
}

#[test]
fn every_line_of_json_parses() {
    let world = World::new();
    let up = world.up(&[]);
    let file = world.file("talk.js", TALKING);
    world.nex(&["devrun", &file]).expect(0);
    let (logs, events) = (tail(&world, &["logs", "--json"]), tail(&world, &["events", "--json"]));
    let both = || {
        world.nex(&["call", "talkjs", r#"a "quoted" word"#]).expect(0);
        logs.out().contains("cried") && events.out().contains("function_exec_succeeded")
    };
    world.eventually("both tails have subscribed", both);
    world.nex(&["stop", "talkjs"]).expect(0);
    events.waits_for("workload_undeployed");
    up.interrupt().expect(0);
    events.waits_for("node_stopped");
    let parsed = |text: String| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let lines = parsed(logs.interrupt().expect(0).text());
    assert!(lines.iter().any(|line| line["text"] == r#"said a "quoted" word"#), "{lines:?}");
    for line in &lines {
        assert_eq!((&line["workload_name"], &line["namespace"]), (&"talkjs".into(), &"default".into()));
        assert!(line["level"].is_string() && line["workload_id"].is_string() && line["node_id"].is_string());
    }
    for event in parsed(events.interrupt().expect(0).text()) {
        assert_eq!((&event["specversion"], event["data"].is_object()), (&"1.0".into(), true), "{event}");
        assert!(["id", "source", "type", "time"].iter().all(|name| event[name].is_string()), "{event}");
    }
}

#[test]
fn events_tell_the_life_of_workloads_and_nodes() {
    let world = World::with_nats();
    let events = tail(&world, &["events"]);
    let other = tail(&world, &["events", "--namespace", "other"]);
    let node = world.node_up(&[]);
    events.waits_for("node_started");
    let file = world.file("moody.js", "(s, p) => { if (p.length > 1) throw new Error('too much'); return 1; }");
    world.nex(&["devrun", &file]).expect(0);
    events.waits_for("workload_deployed");
    world.nex(&["call", "moodyjs", "1"]).expect(0);
    events.waits_for("function_exec_succeeded");
    world.nex(&["call", "moodyjs", "22"]).expect(1);
    events.waits_for("function_exec_failed");
    world.nex(&["stop", "moodyjs"]).expect(0);
    events.waits_for("workload_undeployed");
    world.nex(&["lameduck", &world.node_id()]).expect(0);
    events.waits_for("node_entered_lameduck");
    node.ends().expect(0);
    let said = events.waits_for("node_stopped");
    assert!(said.contains("default workload_deployed") && said.contains("workload_name=moodyjs"), "{said}");
    assert!(said.contains("system node_started") && said.contains("too much"), "{said}");
    let said = other.waits_for("node_stopped");
    assert!(!said.contains("moodyjs"), "another namespace's: {said}");
    events.interrupt().expect(0);
    world.nex(&["events", "--namespace", "system"]).expect(2).says(&["automatically subscribed"]);
}

#[test]
fn a_reader_that_goes_away_ends_a_tail_well() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("talk.js", TALKING);
    world.nex(&["devrun", &file]).expect(0);
    let mut command = world.command("nex", &["logs"]);
    let mut child = world.block_on(async { command.stderr(Stdio::null()).spawn().unwrap() });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = || {
        world.nex(&["call", "talkjs", "x"]).expect(0);
        let line = world.block_on(async { tokio::time::timeout(std::time::Duration::from_millis(200), lines.next_line()).await });
        line.is_ok_and(|line| line.unwrap().is_some())
    };
    world.eventually("a line is read", first);
    drop(lines);
    let ended = || {
        world.nex(&["call", "talkjs", "x"]).expect(0);
        child.try_wait().unwrap().is_some()
    };
    world.eventually("it ends with its reader", ended);
    assert_eq!(child.try_wait().unwrap().and_then(|status| status.code()), Some(0));
    // The same for an answer that nobody reads.
    let ended = world.end(world.command("sh", &["-c", "(nex node ls; echo $? >&2) | true"]));
    ended.expect(0).says(&["0"]);
}

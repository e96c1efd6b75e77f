//! What nodes have kept, as a user asks for it: `nex logs --since|--tail|--follow|--previous`, `nex events --since`, `nex describe`.

use serde_json::Value;

use crate::world::World;

/// Fails as often as it has not been told to stay, by a line of its own that says for which time it was started.
const FAILING: &str = "#!/bin/sh\necho begun $$\necho no database >&2\nsleep 0.2\nexit 7\n";

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn logs_and_events_are_there_after_a_workload_and_its_node_have_ended() {
    let world = World::with_nats();
    let node = world.node_up(&[]);
    let file = world.file("talker.sh", "#!/bin/sh\necho one\necho two\nexec sleep 1000\n");
    world.nex(&["devrun", &file]).expect(0);
    world.nex(&["stop", "talkersh"]).expect(0);
    node.interrupt().expect(0);
    world.nex(&["logs", "talkersh", "--since", "1h"]).expect(1).says(&["no node answers", "nex up"]);
    let _node = world.node_up(&[]);
    world.nex(&["logs", "talkersh", "--since", "1h"]).expect(0).says(&["one", "two"]);
    world.nex(&["logs", "talkersh", "--tail", "1"]).expect(0).says(&["two"]).says_not("one");
    let lines = parsed(&world.nex(&["logs", "--since", "1d", "--level", "info", "--json"]).expect(0).text());
    assert!(lines.iter().any(|line| line["text"] == "one" && line["workload_name"] == "talkersh"), "{lines:?}");
    assert!(lines.iter().all(|line| line["time"].is_string() && line["node_id"].is_string()), "{lines:?}");
    let events = world.nex(&["events", "--since", "1h"]).expect(0);
    events.says(&["workload_started", "workload_deployed", "workload_undeployed", "node_started", "node_stopped", "talkersh"]);
    let last = parsed(&world.nex(&["events", "--tail", "2", "--json"]).expect(0).text());
    assert!(last.len() == 2 && last.iter().all(|event| event["specversion"] == "1.0"), "{last:?}");
    world.nex(&["events", "--since", "2999-01-01T00:00:00Z"]).expect(0).says_not("workload");
    world.nex(&["logs", "--since", "1h", "--namespace", "other"]).expect(0).says_not("one");
    for wrong in [&["logs", "--since", "yesterday"][..], &["logs", "--previous"], &["events", "--tail", "0"]] {
        world.nex(wrong).expect(2);
    }
    let told = world.nex(&["describe", "talkersh"]).expect(0).text();
    for part in ["talkersh", "ended", "What happened:", "started", "deployed", "gone; cause stopped", "two"] {
        assert!(told.contains(part), "'{part}' in {told}");
    }
    let told = world.nex(&["describe", "talkersh", "--json"]).expect(0).json();
    assert_eq!((&told[0]["state"], told[0]["story"].as_array().map(Vec::len)), (&"ended".into(), Some(3)), "{told}");
    world.nex(&["describe", "nosuch"]).expect(1).says(&["no workload", "nex ps"]);
}

#[test]
fn what_is_followed_has_no_gap_and_no_repeat() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = "#!/bin/sh\ni=0\nwhile :; do echo tick $i; i=$((i+1)); sleep 0.005; done\n";
    let file = world.file("ticker.sh", script);
    world.nex(&["devrun", &file]).expect(0);
    let numbers = |text: &str| -> Vec<u64> {
        let lines = text.lines().filter_map(|line| line.split("tick ").nth(1)?.trim().parse().ok());
        lines.collect()
    };
    for flags in [&["--since", "1h"][..], &["--tail", "7"]] {
        let follow = world.start(&[&["logs", "tickersh", "--follow"], flags].concat());
        follow.waits_for("Watching");
        let begun = numbers(&follow.out()).len();
        world.eventually("much comes live", || numbers(&follow.out()).len() > begun + 100);
        let ended = follow.interrupt().expect(0);
        let seen = numbers(&ended.text());
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{flags:?}: {seen:?}");
    }
    let events = world.start(&["events", "--since", "1h", "--follow", "--json"]);
    world.eventually("it has told what was", || events.out().contains("workload_deployed"));
    world.nex(&["stop", "tickersh"]).expect(0);
    events.waits_for("workload_undeployed");
    let told = parsed(&events.interrupt().expect(0).text());
    let mut ids: Vec<&str> = told.iter().map(|event| event["id"].as_str().unwrap()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{told:?}");
}

#[test]
fn the_lines_of_the_run_before_the_last_start_are_those_and_no_others() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("failing.sh", FAILING);
    world.nex(&["devrun", &file, "--settle", "none"]).expect(0);
    world.eventually("it has ended", || world.ps().is_empty());
    world.nex(&["logs", "failingsh", "--previous"]).expect(1).says(&["before its last start", "next: "]);
    world.nex(&["devrun", &file, "--settle", "none", "--restart", "on-failure"]).expect(0);
    world.eventually("it was started again", || world.ps().first().is_some_and(|it| it["restarts"].as_u64() > Some(1)));
    world.nex(&["stop", "failingsh"]).expect(0);
    let all = world.nex(&["logs", "failingsh", "--since", "1h"]).expect(0).text();
    let begun = |text: &str| text.lines().filter_map(|line| Some(line.split("begun ").nth(1)?.to_owned())).collect::<Vec<_>>();
    let previous = world.nex(&["logs", "failingsh", "--previous"]).expect(0).text();
    let (runs, one) = (begun(&all), begun(&previous));
    assert!(runs.len() >= 3 && previous.contains("no database"), "{all}");
    assert!(one.len() == 1 && runs[runs.len() - 2..].contains(&one[0]), "{one:?} of {runs:?}");
    let told = world.nex(&["describe", "failingsh"]).expect(0).text();
    for part in ["cause exit, exit code 7", "to be started again in", "started again, for the 1. time", "no database"] {
        assert!(told.contains(part), "'{part}' in {told}");
    }
}

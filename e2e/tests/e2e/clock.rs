//! A host whose clock jumps: nobody notices but those who read times. Only in the lab, whose clock may be set.

use std::time::{SystemTime, UNIX_EPOCH};

use nex_testkit::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::World;

const DAY: i64 = 24 * 60 * 60;

/// Says a line each second, as its schedule wants it.
const TICKER: &str = "() => { console.log('tick') }";
const SLEEPER: &str = "#!/bin/sh\necho began\nexec sleep 100000\n";

/// Sets the clock, this many seconds later or earlier than it says.
fn jump(world: &World, by: i64) {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    world.end(world.command("date", &["-u", "-s", &format!("@{}", now + by)])).expect(0);
}

fn ticks(world: &World) -> usize {
    let lines = world.nex(&["logs", "ticker", "--tail", "1000"]).expect(0).text();
    lines.matches("tick\n").count()
}

/// The schedule does.
#[track_caller]
fn goes_on(world: &World) {
    let before = ticks(world);
    world.eventually("the schedule goes on", || ticks(world) >= before + 2);
}

/// What ran runs on under its id, and what is new is taken.
#[track_caller]
fn is_well(world: &World, ids: &[String], new: &str) {
    world.nex(&["call", "echo"]).expect(0).says(&["reply"]);
    let file = world.file("new.sh", SLEEPER);
    world.nex(&["devrun", &file, "--name", new]).expect(0);
    world.nex(&["stop", new]).expect(0);
    let running = world.ps();
    let started_again = running.iter().filter(|it| !it["restarts"].is_null()).collect::<Vec<_>>();
    assert!(started_again.is_empty(), "{started_again:?}");
    let mut found: Vec<_> = running.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    found.sort();
    assert_eq!(found, ids);
}

/// Its bus is started again, and agents and node prove themselves to it once more.
fn kill_bus(world: &World) {
    let bus = world.text_path("state/node/bus");
    for (pid, _) in world.processes().into_iter().filter(|(_, line)| line.contains(&bus)) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_both_ways_ends_nothing_and_keeps_nothing_out() {
    if std::env::var_os("NEX_LAB").is_none() {
        skip!(
            "a_clock_that_jumps_both_ways_ends_nothing_and_keeps_nothing_out",
            "only the clock of the lab may be set: cargo xtask test --lab e2e"
        );
    }
    let world = World::with_nats();
    let mut node = world.node_up(&[]);
    let echo = world.file("echo.js", "() => 'reply'");
    world.nex(&["devrun", &echo, "--trigger", "subject:echo"]).expect(0);
    let ticker = world.file("ticker.js", TICKER);
    world.nex(&["devrun", &ticker, "--name", "ticker", "--trigger", "every:1s", "--trigger", "cron:0 0 1 1 *"]).expect(0);
    let kept = world.file("kept.sh", SLEEPER);
    world.nex(&["devrun", &kept, "--name", "kept"]).expect(0);
    let mut ids: Vec<_> = world.ps().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    for (round, days) in [3, -6].into_iter().enumerate() {
        jump(&world, days * DAY);
        goes_on(&world);
        is_well(&world, &ids, &format!("new-{round}"));
        kill_bus(&world);
        world.eventually("the bus is back", || world.nex(&["devrun", &kept, "--name", "other", "--timeout", "20s"]).code == 0);
        world.nex(&["stop", "other"]).expect(0);
        is_well(&world, &ids, &format!("after-bus-{round}"));
        node.kill9();
        node = world.node_up(&[]);
        is_well(&world, &ids, &format!("after-node-{round}"));
        // The clock jumps while no node runs.
        node.kill9();
        jump(&world, days * DAY / 4);
        node = world.node_up(&[]);
        is_well(&world, &ids, &format!("after-both-{round}"));
    }
    // What was set back is set right.
    jump(&world, 400 * DAY);
    goes_on(&world);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

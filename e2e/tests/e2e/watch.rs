//! `nex devrun --watch`: each save is live, none interrupts the service, and what cannot run replaces nothing.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::caller::Callers;
use crate::running::Running;
use crate::world::World;

/// `nex devrun --watch --json`, and what it has told so far.
struct Watch<'a> {
    world: &'a World,
    command: Running,
}

impl<'a> Watch<'a> {
    fn start(world: &'a World, file: &str, more: &[&str]) -> Self {
        let command = world.start(&[&["devrun", file, "--watch", "--json"], more].concat());
        Self { world, command }
    }

    fn told(&self, event: &str) -> Vec<Value> {
        let all = self.command.out();
        let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        all.filter(|told| told["event"] == event).collect()
    }

    /// Waits until it has told so many events of a kind; gives back the last.
    #[track_caller]
    fn until(&self, event: &str, count: usize) -> Value {
        self.world.eventually(&format!("{count} times {event}: {}", self.command.out()), || self.told(event).len() >= count);
        let told = self.told(event);
        assert_eq!(told.len(), count, "{event}: {told:?}");
        told.last().unwrap().clone()
    }

    /// Interrupts it; nothing that it started is left.
    #[track_caller]
    fn ends(self) -> Vec<Value> {
        let ended = self.command.interrupt().expect(0);
        assert!(self.world.ps().is_empty(), "{:?}", self.world.ps());
        ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn ten_saves_are_live_one_after_the_other_and_no_call_is_lost() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("busy.js", "() => 'reply 0'");
    let watch = Watch::start(&world, &file, &[]);
    let first = watch.until("live", 1);
    assert_eq!(
        (&first["name"], &first["triggers"][0], &first["replaced"]),
        (&"busyjs".into(), &"busyjs".into(), &Value::Array(vec![]))
    );
    let callers = Callers::start(&world, "busyjs");
    for version in 1..=10 {
        let before = callers.answered();
        world.file("busy.js", format!("() => 'reply {version}'"));
        let live = watch.until("live", version + 1);
        assert_eq!(live["replaced"].as_array().unwrap().len(), 1, "{live}");
        world.nex(&["call", "busyjs", ""]).expect(0).says(&[&format!("reply {version}")]);
        world.eventually("calls go on", || callers.answered() > before + 50);
    }
    callers.all_were_answered(&world);
    let times: Vec<_> = watch.told("live").iter().map(|live| live["ms"].as_u64().unwrap()).collect();
    eprintln!("milliseconds from save to live: {times:?}");
    let told = watch.ends();
    assert_eq!(told.last().unwrap()["event"], "stopped", "{told:?}");
}

#[test]
fn a_broken_save_keeps_the_old_copy_and_says_why_and_its_lines_and_errors_are_told() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("f.js", "() => {");
    let watch = Watch::start(&world, &file, &[]);
    let failed = watch.until("failed", 1);
    assert!(failed.to_string().contains("SyntaxError") && failed["running"].as_array().unwrap().is_empty(), "{failed}");
    world.file("f.js", "() => { console.log('called'); return 'one' }");
    let live = watch.until("live", 1);
    world.nex(&["call", "fjs", ""]).expect(0).says(&["one"]);
    world.eventually("its line is told", || watch.told("log").iter().any(|line| line["text"] == "called"));
    for (number, broken) in ["() => {", "no program", "", "\0"].into_iter().enumerate() {
        world.file("f.js", broken);
        let failed = watch.until("failed", number + 2);
        assert_eq!(failed["running"][0], live["ids"][0], "{failed}");
        world.nex(&["call", "fjs", ""]).expect(0).says(&["one"]);
    }
    world.file("f.js", "() => { throw new Error('on purpose') }");
    watch.until("live", 2);
    world.nex(&["call", "fjs", ""]).expect(1);
    let is_told =
        |line: &Value| line["level"] == "ERROR" && line["text"].as_str().is_some_and(|text| text.contains("on purpose"));
    world.eventually("its error is told", || watch.told("log").iter().any(is_told));
    watch.ends();
}

#[test]
fn a_file_that_vanishes_comes_back_and_one_that_is_the_same_is_not_deployed() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("a/f.js", "() => 'one'");
    let watch = Watch::start(&world, &file, &[]);
    watch.until("live", 1);
    fs::remove_file(&file).unwrap();
    watch.until("gone", 1);
    world.nex(&["call", "fjs", ""]).expect(0).says(&["one"]);
    world.file("a/f.js", "() => 'two'");
    watch.until("live", 2);
    fs::remove_dir_all(world.path("a")).unwrap();
    watch.until("gone", 2);
    world.file("a/f.js", "() => 'two'");
    watch.until("unchanged", 1);
    // As many editors save.
    let beside = world.file("a/.f.js.swp", "() => 'three'");
    fs::rename(beside, &file).unwrap();
    watch.until("live", 3);
    world.nex(&["call", "fjs", ""]).expect(0).says(&["three"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    watch.until("gone", 3);
    watch.ends();
}

#[test]
fn of_a_burst_of_saves_the_last_is_live() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("f.js", "() => 'save 0'");
    let watch = Watch::start(&world, &file, &[]);
    watch.until("live", 1);
    for number in 1..=200 {
        for other in 0..5 {
            world.file(&format!("other-{other}.js"), format!("() => 'other {number}'"));
        }
        world.file("f.js", format!("() => 'save {number}'"));
    }
    world.eventually("the last is live", || world.nex(&["call", "fjs", ""]).expect(0).text().contains("save 200"));
    assert!(watch.told("live").len() < 100, "{:?}", watch.told("live"));
    world.eventually("the others are gone", || world.ps().len() == 1);
    watch.ends();
}

#[test]
fn for_people_it_is_said_what_runs_and_what_was_stopped() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("greet.js", "() => 'one'");
    world.nex(&["devrun", &file]).expect(0);
    let before = world.ps()[0]["id"].as_str().unwrap().to_owned();
    let watch = world.start(&["devrun", &file, "--watch"]);
    let said = watch.waits_for("Ctrl-C stops it");
    for part in ["🚀 Workload 'greetjs' accepted", "its name calls it: greetjs", "nex call greetjs <payload>"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(world.ps().len() == 1 && world.ps()[0]["id"] != before, "the copy that ran was replaced");
    world.file("greet.js", "() => { console.log('hello'); return 'two' }");
    watch.waits_for("is live, ");
    world.nex(&["call", "greetjs", ""]).expect(0).says(&["two"]);
    watch.waits_for("hello");
    world.file("greet.js", "() => {");
    watch.waits_for("is not live; what ran before still runs: ");
    watch.waits_for("SyntaxError");
    fs::remove_file(&file).unwrap();
    watch.waits_for("is gone; what runs stays");
    watch.interrupt().expect(0).says(&["✅ Workload 'greetjs' stopped."]);
    assert!(world.ps().is_empty());
}

#[test]
fn a_service_is_watched_as_well_and_its_end_is_told() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("service.sh", "#!/bin/sh\necho one\nexec sleep 1000\n");
    let watch = Watch::start(&world, &file, &["--settle", "100ms"]);
    watch.until("live", 1);
    world.file("service.sh", "#!/bin/sh\nexit 3\n");
    let failed = watch.until("failed", 1);
    assert!(failed.to_string().contains("exit code 3") && failed["running"].as_array().unwrap().len() == 1, "{failed}");
    world.file("service.sh", "#!/bin/sh\necho two\nsleep 1\nexit 4\n");
    watch.until("live", 2);
    let ended = watch.until("ended", 1);
    assert_eq!(ended["exit_code"], 4, "{ended}");
    world.file("service.sh", "#!/bin/sh\necho three\nexec sleep 1000\n");
    watch.until("live", 3);
    world.eventually("its lines are told", || watch.told("log").iter().any(|line| line["text"] == "three"));
    // Closed terminals and supervisors end it as Ctrl-C does.
    watch.command.signal(Signal::SIGTERM);
    watch.command.ends().expect(0);
    assert!(world.ps().is_empty());
}

#[test]
fn what_it_started_is_stopped_when_nobody_reads_what_it_says() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("f.js", "() => 'one'");
    let line = format!("exec nex devrun {file} --watch --json | head -n 1");
    let watch = world.start_command(world.command("sh", &["-c", &line]));
    watch.waits_for("live");
    world.file("f.js", "() => 'two'");
    world.eventually("it is stopped", || world.ps().is_empty());
    watch.ends().expect(0);
}

#[test]
fn a_workload_that_never_stops_talking_is_replaced_as_well() {
    let world = World::new();
    let _up = world.up(&[]);
    let file = world.file("talker.sh", "#!/bin/sh\nwhile :; do echo one; sleep 0.01; done\n");
    let watch = Watch::start(&world, &file, &["--settle", "none"]);
    watch.until("live", 1);
    world.eventually("it talks", || watch.told("log").len() > 10);
    world.file("talker.sh", "#!/bin/sh\necho two\nexec sleep 1000\n");
    watch.until("live", 2);
    watch.ends();
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let world = World::with_nats();
    let file = world.file("f.js", "() => 1");
    world.nex(&["devrun", &file, "--watch", "--timeout", "300ms"]).expect(4).says(&["no nodes discovered"]);
    world.nex(&["devrun", &file, "--watch", "--no-stop"]).expect(2);
    world.nex(&["devrun", &file, "--watch", "--job"]).expect(2);
    world.nex(&["devrun", "oci://localhost/shop:v3", "--watch"]).expect(2).says(&["is an image", "leave --watch out"]);
    world.nex(&["devrun", &world.text_path("none.js"), "--watch"]).expect(1).says(&["none.js", "next: check the path"]);
    let empty = world.file("empty.js", "");
    world.nex(&["devrun", &empty, "--watch"]).expect(2).says(&["empty"]);
}

//! A host that gives a node nothing any more: no room on its disk, no descriptors, no processes. What runs runs on, what is asked for is
//! refused with the reason, and all is well again by itself when the host is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nex_testkit::skip;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::running::Running;
use crate::world::World;

/// A user that has no processes but those of one test.
const ALONE: u32 = 64_517;

const SLEEPER: &str = "#!/bin/sh\necho began\nexec sleep 1000\n";

/// A small disk at a path, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, mib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={mib}m,mode=755");
        mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        Self(path.to_owned())
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        for size in [1 << 20, 4096, 1] {
            let mut taken = fs::File::options().append(true).create(true).open(self.0.join("taken")).unwrap();
            while std::io::Write::write_all(&mut taken, &vec![0; size]).is_ok() {}
        }
    }

    /// A disk that can fail; nothing where this host makes none.
    fn that_fails(path: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let file = path.with_extension("ext4");
        fs::File::create(&file).unwrap().set_len(mib << 20).unwrap();
        let succeeds = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let (file, at) = (file.to_str().unwrap(), path.to_str().unwrap());
        let is_there = succeeds("mkfs.ext4", &["-q", file]) && succeeds("mount", &["-o", "loop", file, at]);
        is_there.then(|| Self(path.to_owned()))
    }

    /// It fails: from here on it is read-only, for those too who have files open.
    fn fail(&self) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some("abort")).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("taken")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// What runs before the trouble, and answers through it.
fn begin(world: &World) {
    let function = world.file("echo.js", "() => 'reply'");
    world.nex(&["devrun", &function, "--trigger", "subject:echo"]).expect(0);
    let service = world.file("kept.sh", SLEEPER);
    world.nex(&["devrun", &service, "--name", "kept"]).expect(0);
}

/// The same, and a service that is to be stopped meanwhile; the file of one that is to come.
fn begin_with_one_to_stop(world: &World) -> String {
    begin(world);
    let stopped = world.file("stopped.sh", SLEEPER);
    world.nex(&["devrun", &stopped, "--name", "stopped"]).expect(0);
    world.file("another.sh", SLEEPER)
}

#[track_caller]
fn goes_on(world: &World) {
    world.nex(&["call", "echo"]).expect(0).says(&["reply"]);
    let kept = world.ps().into_iter().find(|it| it["name"] == "kept").unwrap();
    assert!(kept["state"] == "running" && kept["restarts"].is_null(), "{kept}");
}

/// Deploys until that is taken.
fn is_well_again(world: &World, file: &str) {
    world.eventually("workloads are taken again", || world.nex(&["devrun", file, "--name", "later"]).code == 0);
    goes_on(world);
}

/// What a node may have of something.
struct Limit<'a> {
    world: &'a World,
    node: &'a Running,
    /// As `prlimit` calls it.
    option: &'static str,
    before: String,
}

impl<'a> Limit<'a> {
    /// Lets the node have no more than this from now on. `name` is what /proc calls the limit.
    fn set(world: &'a World, node: &'a Running, (name, option): (&str, &'static str), count: &str) -> Self {
        let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
        let before = limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()).unwrap().to_owned();
        let limit = Self { world, node, option, before };
        limit.write(count);
        limit
    }

    fn lift(self) {
        self.write(&self.before);
    }

    fn write(&self, count: &str) {
        let arguments = ["--pid", &self.node.pid().to_string(), &format!("{}={count}:", self.option)];
        self.world.end(self.world.command("prlimit", &arguments)).expect(0);
    }
}

#[test]
fn a_node_whose_disk_is_full_refuses_what_is_new_and_takes_it_again_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        skip!(
            "a_node_whose_disk_is_full_refuses_what_is_new_and_takes_it_again_when_there_is_room",
            "not root: no disk can be mounted"
        );
    }
    let world = World::with_nats();
    let state = world.path("small");
    let disk = Disk::mount(&state, 64);
    let node = world.node_up(&["--state-dir", state.to_str().unwrap()]);
    let another = begin_with_one_to_stop(&world);
    disk.fill();
    for _ in 0..2 {
        let refused = world.nex(&["devrun", &another, "--name", "later"]).expect(1);
        refused.says(&["No space left on device", "next: ", "the disk under the"]);
        goes_on(&world);
    }
    // What is stopped meanwhile ends, and stays so once there is room to say it.
    world.nex(&["stop", "stopped"]).expect(0);
    disk.free();
    is_well_again(&world, &another);
    let is_owed = || node.err().contains("an ended workload stays") && !node.err().contains("has taken the end of a workload");
    world.eventually("the end is on disk", || !is_owed());
    node.kill9();
    let node = world.node_up(&["--state-dir", state.to_str().unwrap()]);
    let names = || {
        world
            .ps()
            .iter()
            .filter(|it| it["state"] == "running")
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let expected = BTreeSet::from(["echojs", "kept", "later"].map(str::to_owned));
    world.eventually("what was accepted is back, and nothing else", || names() == expected);
    goes_on(&world);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_node_whose_disk_fails_refuses_what_is_new_and_goes_on_with_what_it_has() {
    const TEST: &str = "a_node_whose_disk_fails_refuses_what_is_new_and_goes_on_with_what_it_has";
    if !nix::unistd::geteuid().is_root() {
        skip!(TEST, "not root: no disk can be mounted");
    }
    let world = World::with_nats();
    let state = world.path("failing");
    let Some(disk) = Disk::that_fails(&state, 256) else { skip!(TEST, "this host has no ext4, or no loop devices") };
    let node = world.node_up(&["--state-dir", state.to_str().unwrap()]);
    let another = begin_with_one_to_stop(&world);
    disk.fail();
    for _ in 0..2 {
        world.nex(&["devrun", &another, "--name", "later"]).expect(1).says(&["next: ", "the disk under the"]);
        goes_on(&world);
    }
    world.nex(&["stop", "stopped"]).expect(0);
    goes_on(&world);
    assert!(world.ps().iter().all(|it| it["name"] != "stopped"), "{:?}", world.ps());
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_node_without_descriptors_refuses_what_is_new_and_takes_it_again_when_it_has_some() {
    let world = World::with_nats();
    let node = world.node_up(&[]);
    begin(&world);
    let another = world.file("another.sh", SLEEPER);
    // Fewer than it has open: these stay, and no other is to be had.
    let limit = Limit::set(&world, &node, ("Max open files", "--nofile"), "16");
    for _ in 0..3 {
        let refused = world.nex(&["devrun", &another, "--name", "later", "--timeout", "5s"]).expect(1);
        refused.says(&["Too many open files", "next: see the disk under the node's state directory, and how many files"]);
        goes_on(&world);
    }
    limit.lift();
    is_well_again(&world, &another);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_node_that_may_start_no_process_refuses_what_is_new_and_starts_it_again_when_it_may() {
    const TEST: &str = "a_node_that_may_start_no_process_refuses_what_is_new_and_starts_it_again_when_it_may";
    let mut world = World::with_nats();
    // Root is not limited, and whoever runs the tests has other processes.
    if !nix::unistd::geteuid().is_root() {
        skip!(TEST, "not root: nothing can be run as a user that has no other processes");
    }
    world.run_as(ALONE);
    let preflight = world.nex(&["node", "preflight"]);
    if preflight.code != 0 {
        skip!(TEST, format!("this host confines nothing for ordinary users: {}", preflight.text()));
    }
    let node = world.node_up(&[]);
    begin(&world);
    let another = world.file("another.sh", SLEEPER);
    let limit = Limit::set(&world, &node, ("Max processes", "--nproc"), "1");
    // The agents that are warm already still take something.
    let mut refused = None;
    world.eventually("nothing more is taken", || {
        refused = Some(world.nex(&["devrun", &another, "--name", "later"])).filter(|it| it.code != 0);
        refused.is_some()
    });
    refused.unwrap().expect(1).says(&[
        "see how many processes its user",
        "Resource temporarily unavailable",
        "next: try again when that is mended",
    ]);
    goes_on(&world);
    // What dies meanwhile is started again as soon as that is possible.
    let bus = world.text_path("state/node/bus");
    for (pid, _) in world.processes().into_iter().filter(|(_, line)| line.contains(&bus)) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    let tries = node.err().matches("nats-server; see how many processes").count();
    world.eventually("the node has tried to start it", || {
        node.err().matches("nats-server; see how many processes").count() > tries
    });
    world.nex(&["call", "echo"]).expect(0).says(&["reply"]);
    limit.lift();
    is_well_again(&world, &another);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

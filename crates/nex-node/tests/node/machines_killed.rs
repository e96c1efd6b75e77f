//! Kills at each step of a machine's start: of the node, after which the next process removes what it finds, and of the monitor, which under
//! Firecracker is its jailer first. Nothing is left, and there is a machine in the end.

use std::collections::HashSet;
use std::fs;
use std::future::ready;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_bus::settings::ConnectionSettings;
use nex_process::crash_point::Plan;
use nex_process::{ProcessId, Signal};
use nex_protocol::deploy::WorkloadType;
use nex_testkit::{NatsServer, eventually, guest, machines, skip};
use serde_json::{Value, json};

use crate::world::{World, kill9, timeout};

const WHY: &str = "this node has no machines";

/// The steps of a start, and how often a node goes through each until a machine waits for a workload: for the template, for its first
/// clone, which proves it, and for the machine itself.
const STEPS: [(&str, u32); 7] = [
    ("machine: its directories are made", 3),
    ("machine: its network is made", 3),
    ("machine: its monitor is started", 3),
    ("machine: it runs", 3),
    ("machine: it is recorded", 3),
    ("machine: its monitor is in its cgroup", 3),
    ("machine: its guest has its identity", 1),
];

/// What there is of a machine that is being started, from its beginning to its end. Under QEMU there is no socket.
const SIGNS: [fn(&Path) -> bool; 4] = [
    |_dir| true,
    |dir| has_socket(dir) || record(dir).is_some(),
    |dir| record(dir).is_some(),
    |dir| record(dir).is_some_and(|record| !record["cgroup"].is_null()),
];

fn record(dir: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(dir.join("record.json")).ok()?).ok()
}

/// Whether its monitor listens.
fn has_socket(dir: &Path) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name() == "api.sock" || (is_dir && has_socket(&entry.path()))
    })
}

/// The directories of machines, those that are only being made as well.
fn directories(agents: &Path) -> Vec<PathBuf> {
    fs::read_dir(agents).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The processes of a machine. One in a chroot of its own is found by its user only, who owns its directory.
fn processes_of(dir: &Path) -> HashSet<ProcessId> {
    let owner = fs::metadata(dir.join("vm")).ok().map(|found| found.uid()).filter(|uid| *uid != 0);
    let of_owner = owner.into_iter().flat_map(ProcessId::all_of_user).map(|(process, _)| process);
    ProcessId::all_inside(dir).into_iter().chain(of_owner).filter(|process| process.is_alive()).collect()
}

impl World {
    fn agents_dir(&self) -> PathBuf {
        self.state().join("agents")
    }

    /// What the devices of this node's guests begin with in their aliases.
    fn owner(&self) -> String {
        let node: String = self.target().node.as_str().chars().skip(1).take(12).collect();
        format!("nex:{}:", node.to_lowercase())
    }

    /// The processes of all machines.
    fn monitors(&self) -> HashSet<ProcessId> {
        directories(&self.agents_dir()).iter().flat_map(|dir| processes_of(dir)).collect()
    }

    /// One machine waits for a workload, and there is nothing of another one: no process, no directory, no device.
    async fn has_one_machine(&self, what: &str) {
        self.until_warm(1).await;
        let owner = self.owner();
        let there = || (self.monitors(), directories(&self.agents_dir()), devices(&owner));
        let is_alone =
            async || matches!(there(), (processes, dirs, devices) if (processes.len(), dirs.len(), devices.len()) == (1, 1, 1));
        assert!(eventually(timeout(), is_alone).await, "{what}: {:?}", there());
    }

    async fn stops_without_a_trace(&mut self) {
        let (owner, monitors) = (self.owner(), self.monitors());
        self.stop().await;
        assert!(devices(&owner).is_empty() && !monitors.iter().any(|it| it.is_alive()), "{:?}, {monitors:?}", devices(&owner));
    }
}

/// Aliases of network devices that begin so.
fn devices(owner: &str) -> Vec<String> {
    let links = fs::read_dir("/sys/class/net").unwrap().flatten().map(|link| link.path().join("ifalias"));
    links.filter_map(|alias| fs::read_to_string(alias).ok()).filter(|alias| alias.starts_with(owner)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_at_any_step_of_a_machines_start_leaves_nothing_to_the_next() {
    if !machines::in_machines() {
        skip!("a_node_that_is_killed_at_any_step_of_a_machines_start_leaves_nothing_to_the_next", WHY);
    }
    let nats = NatsServer::start().await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let mut world = World::without_node(nats, connection, json!({})).await;
    for (step, times) in STEPS {
        let plan = Plan::Kill { step: step.to_owned(), nth: rand::random_range(1..=times) };
        println!("killed at {plan}");
        let mut doomed = world.spawn_doomed_at(Some(&plan));
        let died = eventually(timeout() * 3, || ready(doomed.try_wait().unwrap().is_some()));
        assert!(died.await, "it does not come to {plan}");
        let left = world.monitors();
        world.start_node().await;
        world.has_one_machine(&plan.to_string()).await;
        assert!(!left.iter().any(|monitor| monitor.is_alive()), "{plan}: {left:?}");
        world.stops_without_a_trace().await;
        // The next one knows of no template and no proof.
        fs::remove_dir_all(world.state()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_at_any_step_of_its_start_is_replaced_and_nothing_of_it_is_left() {
    if !machines::in_machines() {
        skip!("a_monitor_that_is_killed_at_any_step_of_its_start_is_replaced_and_nothing_of_it_is_left", WHY);
    }
    let mut world = World::start(json!({})).await;
    for (step, sign) in SIGNS.iter().enumerate() {
        world.has_one_machine("before").await;
        let (known, agents) = (directories(&world.agents_dir()), world.agents_dir());
        // The pool makes another one.
        world.warm_agents().into_values().for_each(kill9);
        let killed = tokio::task::spawn_blocking(move || kill_at(&agents, &known, *sign)).await.unwrap();
        println!("killed at step {step}: {killed:?}");
    }
    world.has_one_machine("in the end").await;
    world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.stops_without_a_trace().await;
}

/// Kills the processes of the next machine as soon as it shows that sign, and waits for their end.
#[expect(clippy::disallowed_methods, reason = "it looks almost without a pause: a step may take less than a millisecond")]
fn kill_at(agents: &Path, known: &[PathBuf], sign: fn(&Path) -> bool) -> HashSet<ProcessId> {
    let end = std::time::Instant::now() + timeout();
    loop {
        let shown = directories(agents).into_iter().filter(|dir| !known.contains(dir) && sign(dir));
        let mut killed: HashSet<_> = shown.flat_map(|dir| processes_of(&dir)).collect();
        killed.retain(|process| process.signal(Signal::SIGKILL).unwrap_or(false));
        if !killed.is_empty() {
            while killed.iter().any(|process| process.is_alive()) {
                std::thread::yield_now();
            }
            return killed;
        }
        assert!(std::time::Instant::now() < end, "no other machine is started");
        std::thread::sleep(Duration::from_micros(200));
    }
}

//! A node whose workloads are in microVMs: what they find there, what they reach, what survives, what is left.
//!
//! Real monitors, kernels and networks; `SKIP` where there are none.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use nex_testkit::{machines, skip};
use serde_json::json;

use crate::guests::{
    Told, configure, deploy_script, field, host_state, kill_machine, lines, listen, monitors, obstacle, on_a_host, run, server,
    workload, world,
};
use crate::leftovers::{Watch, of_guests};
use crate::running::Running;
use crate::world::World;

const PROBE: &str = include_str!("guest_probe.sh");
const SECRET: &str = "the-secret-9f1c7d2e5b";
const CLOCK_JS: &str = "(subject, payload) => Date.now()";
/// What only a cloud's or a monitor's metadata service has; here the host has it.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[test]
fn workloads_in_guests_are_strangers_to_each_other_and_to_the_host() {
    if let Some(why) = obstacle() {
        skip!("workloads_in_guests_are_strangers_to_each_other_and_to_the_host", why);
    }
    on_a_host(|| {
        run("ip", &["address", "add", &format!("{METADATA}/32"), "dev", "lo"]);
        let world = world();
        let config = json!({
            "machine_pool_size": 1, "workload_types": ["native", "v8"],
            "machine_classes": { "large": { "vcpu_count": 2, "memsize_mib": 384, "pool_size": 0 } },
        });
        configure(&world, "config.json", config);
        let before = host_state();
        let node = world.node_up(&[]);
        let mut watch = Watch::new(node.pid());
        let logs = listen(&world);
        is_told_by_its_tags(&world);
        has_the_time(&world);
        let (one, two) = deploy_two(&world, &node, &logs);
        watch.look();
        finds_a_machine_of_its_own(&one, &two);
        reaches_what_it_may(&one, &two);
        gets_the_machine_it_asks_for(&world, &logs);
        keeps_secrets(&world, &node);
        prints_its_final_line(&world, &logs);
        comes_back(&world, &logs, two.of("hostname"));
        watch.look();

        let id = world.node_id();
        let node = survives(&world, node, &watch);
        watch = Watch::new(node.pid());
        watch.look();
        node.interrupt().expect(0);
        assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
        assert_eq!(of_guests(&id, &world.path("state")), Vec::<String>::new());
        assert_eq!(monitors(&world.path("state")), []);
        assert_eq!(host_state(), before);
    });
}

fn is_told_by_its_tags(world: &World) {
    let tags = &world.nodes()[0]["tags"];
    let (monitor, is_unsafe) = (machines::monitor(), machines::monitor() != "firecracker");
    assert_eq!((&tags["nex.sandbox"], &tags["nex.unsafe"]), (&monitor.clone().into(), &is_unsafe.to_string().into()), "{tags}");
    let said = [format!("nex.sandbox={monitor}"), format!("nex.unsafe={is_unsafe}")];
    world.nex(&["node", "info", &world.node_id()]).expect(0).says(&said.each_ref().map(String::as_str));
}

fn has_the_time(world: &World) {
    let script = world.file("clock.js", CLOCK_JS);
    world.nex(&["devrun", &script, "--name", "clock", "--trigger_subject", "fn.clock"]).expect(0);
    world.eventually_answers("fn.clock");
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let earliest = now();
    let said: i64 = world.nex(&["call", "fn.clock", ""]).expect(0).text().trim_matches('"').parse().unwrap();
    assert!((earliest - 2_000..now() + 2_000).contains(&said), "the guest's clock is {} ms off", said - earliest);
}

/// Two of the same program in two clones of one template; the second, an essential one, knows the first one's address.
fn deploy_two(world: &World, node: &Running, logs: &Running) -> (Told, Told) {
    let bus = field(&node.err(), "Machine started", "nats_port")[0].to_owned();
    let common = [
        format!("USER_PORT={}", world.port()),
        format!("BUS_PORT={bus}"),
        format!("HOST_PORT={}", server(Ipv4Addr::UNSPECIFIED)),
        format!("METADATA_PORT={}", server(METADATA)),
        format!("STATE={}", world.text_path("state")),
    ];
    let deploy = |name: &str, more: &[&str]| {
        let more: Vec<&str> = common.iter().map(String::as_str).chain(more.iter().copied()).collect();
        deploy_script(world, name, PROBE, &more);
        Told::wait(world, logs, name)
    };
    let one = deploy("one", &[&format!("SECRET={SECRET}"), "OTHER=169.254.169.254"]);
    let two = deploy("two", &[&format!("OTHER={}", one.of("ip")), "--essential"]);
    (one, two)
}

fn finds_a_machine_of_its_own(one: &Told, two: &Told) {
    for what in ["hostname", "ip", "mac", "uuid", "bytes"] {
        assert_ne!(one.of(what), two.of(what), "{what}");
    }
    let host = std::fs::read_to_string("/proc/version").unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for guest in [one, two] {
        assert_ne!(guest.of("kernel"), host.trim());
        assert_ne!(guest.of("boot"), boot.trim());
        assert_ne!(guest.of("uid"), "0");
        assert_eq!((guest.of("cpus"), guest.of("resolvers")), ("1", "0"));
        let possible = ["could read its own environment", "could open its own memory", "could write where it works"];
        let could: Vec<_> = guest.all("could ").into_iter().filter(|line| !line.starts_with("could not ")).collect();
        assert_eq!(could, possible, "{guest:#?}");
        assert_eq!(guest.all("could not ").len(), 17, "{guest:#?}");
    }
    assert_eq!((one.of("secret"), two.of("secret")), (SECRET, "none"));
}

fn reaches_what_it_may(one: &Told, two: &Told) {
    for guest in [one, two] {
        // Firecracker's service is there and empty: who the agent is stood in it until just before. Elsewhere there is none.
        assert_eq!(guest.of("metadata"), if machines::monitor() == "firecracker" { "{}" } else { "none" }, "{guest:#?}");
        let reached = ["reached itself: reac", "reached the NATS of the user: INFO"];
        assert_eq!(guest.all("reached "), reached, "{guest:#?}");
        assert_eq!(guest.all("did not reach ").len(), 4, "{guest:#?}");
        assert_eq!(guest.of("bus"), "silent", "without TLS the internal bus says nothing to anybody");
    }
}

fn gets_the_machine_it_asks_for(world: &World, logs: &Running) {
    let script = "echo \"cpus $($b nproc)\"\necho \"memory $($b awk '/^MemTotal/ { print $2 }' /proc/meminfo)\"\necho done\nexec $b sleep 1000\n";
    let small = world.nex(&["devrun", &world.file("any.js", CLOCK_JS), "--machine", "huge"]);
    small.expect(1).says(&["no machine class 'huge'", "it has: large"]);
    let id = deploy_script(world, "big", script, &["--machine", "large"]);
    let told = Told::wait(world, logs, "big");
    let memory: u64 = told.of("memory").parse().unwrap();
    assert_eq!(told.of("cpus"), "2");
    assert!((300_000..=384 * 1024).contains(&memory), "{memory} kB");
    world.nex(&["stop", &id]).expect(0);
}

/// The environment is in its guest's memory and nowhere else: neither in the templates, nor in a log, nor on a command line.
fn keeps_secrets(world: &World, node: &Running) {
    let state = world.text_path("state");
    let files_with = |text: &str| {
        let output = std::process::Command::new("grep").args(["-rlaF", text, &state]).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(files_with("Says what a workload finds in its guest").contains("/drives/"), "an artifact is no secret");
    // The kernel's own command line, in the memory of the template.
    assert!(files_with("init=/nex-agent").contains("/templates/"));
    // What a workload writes itself is kept as its log.
    let files = files_with(SECRET);
    let others: Vec<&str> = files.lines().filter(|file| !file.contains("/history/default.logs/")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!node.err().contains(SECRET));
    for (pid, _) in monitors(&world.path("state")) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(![line, environment].iter().any(|text| String::from_utf8_lossy(text).contains(SECRET)));
    }
}

fn prints_its_final_line(world: &World, logs: &Running) {
    let id = workload(world, "one")["id"].as_str().unwrap().to_owned();
    world.nex(&["stop", &id]).expect(0);
    world.eventually("the final line of one", || lines(logs, "one").last().is_some_and(|line| line == "last words"));
}

/// An essential service whose machine dies is started in another one, under the same id.
fn comes_back(world: &World, logs: &Running, machine: &str) {
    let before = workload(world, "two")["id"].clone();
    kill_machine(&world.path("state"), machine);
    let hostnames = || lines(logs, "two").into_iter().filter(|line| line.starts_with("hostname ")).collect::<Vec<_>>();
    world.eventually("two starts again", || hostnames().len() == 2);
    assert_ne!(hostnames()[0], hostnames()[1]);
    let now = workload(world, "two");
    assert_eq!((&now["id"], &now["restarts"]), (&before, &1.into()));
}

/// `kill -9` of the node: the next one takes over the machines of its workloads, and removes the others.
fn survives(world: &World, node: Running, watch: &Watch) -> Running {
    let ids = || {
        let ids = |name: &str| workload(world, name)["id"].clone();
        (world.node_id(), ids("clock"), ids("two"))
    };
    let (before, state) = (ids(), world.path("state"));
    let machines: Vec<_> = field(&node.err(), "Machine started", "vmid").into_iter().map(str::to_owned).collect();
    let ran = monitors(&state);
    node.kill9();
    let node = world.node_up(&[]);
    world.eventually_answers("fn.clock");
    assert_eq!(ids(), before, "the same workloads on the same node");
    let kept: Vec<_> = monitors(&state).into_iter().filter(|monitor| ran.contains(monitor)).collect();
    assert_eq!(kept.len(), 2, "of {ran:?} those of workloads run on: {kept:?}\n{}", node.err());
    // The sockets are those of the new machines, and the internal bus runs on.
    let is_kept = |left: &String| {
        let is_monitor = kept.iter().any(|(pid, _)| left.starts_with(&format!("process {pid} ")));
        is_monitor || left.starts_with("socket ") || left.ends_with(" nats-server")
    };
    let left = watch.left(&state).into_iter().filter(|left| !is_kept(left));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "of the process that was killed");
    let devices = run("ip", &["-o", "link"]);
    let is_left =
        |machine: &&String| devices.contains(machine.as_str()) || state.join("node/agents").join(machine.as_str()).exists();
    let left: Vec<_> = machines.iter().filter(is_left).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    node
}

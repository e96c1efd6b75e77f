//! `nex node upgrade`: the program of a node is replaced while it runs, and everything on it runs on; what cannot work is refused first.

use std::fs;

use nex_testkit::dist_binary;

use crate::caller::Callers;
use crate::crash::running_on;
use crate::leftovers::Watch;
use crate::world::World;

const SLEEPER: &str = "#!/bin/sh\necho began\nwhile :; do sleep 0.2; done\n";

/// The same program, saying that it is of another version.
pub(crate) fn older(program: &[u8]) -> Vec<u8> {
    let (version, other) = (env!("CARGO_PKG_VERSION").as_bytes(), b"0.0.0-older");
    let mut program = program.to_vec();
    let found: Vec<_> = program.windows(version.len()).enumerate().filter(|(_, it)| *it == version).map(|(at, _)| at).collect();
    for at in found {
        program[at..at + version.len()].copy_from_slice(&other[..version.len()]);
    }
    program
}

/// Puts a program in the place of another, as a package manager does.
fn install(world: &World, path: &str, content: &[u8]) {
    let (path, draft) = (world.path(path), world.file("draft", content));
    fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(draft, path).unwrap();
}

#[test]
fn a_node_goes_on_as_the_program_that_was_installed_and_no_call_is_lost() {
    let world = World::with_nats();
    let node = world.node_up_in("bin", &[]);
    let (pid, mut watch) = (node.pid(), Watch::new(node.pid()));
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service]).expect(0);
    let function = world.file("echo.js", "() => 'reply'");
    world.nex(&["devrun", &function, "--trigger", "subject:echo"]).expect(0);
    let before = world.nodes()[0]["version"].clone();
    watch.look();
    let left = running_on(&watch, &world);
    let callers = Callers::start(&world, "echo");
    world.eventually("calls are answered", || callers.answered() > 500);
    for program in ["nex", "nex-agent"] {
        install(&world, &format!("bin/{program}"), &older(&fs::read(dist_binary(program)).unwrap()));
    }
    let state = world.text_path("state");
    let upgrade = ["node", "upgrade", "--state-dir", &state];
    world.nex(&[&upgrade[..], &["--dry-run"]].concat()).expect(0).says(&["would go on as nex v0.0.0"]);
    assert_eq!(world.nodes()[0]["version"], before);
    world.nex(&upgrade).expect(0).says(&["is nex v0.0.0", "went on running"]);
    assert_eq!((node.pid(), world.nodes()[0]["version"].as_str()), (pid, Some("0.0.0")));
    assert_eq!(running_on(&watch, &world), left, "the same processes");
    world.eventually("both are taken over", || world.ps().iter().filter(|it| it["state"] == "running").count() == 2);
    assert!(world.ps().iter().all(|it| it["restarts"].is_null()), "{:?}", world.ps());
    let seen = callers.answered();
    world.eventually("calls are answered", || callers.answered() > seen + 500);
    callers.all_were_answered(&world);
    // Once more, and what ends then is nobody's zombie.
    let told = world.nex(&[&upgrade[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((told["upgraded"].as_bool(), told["pid"].as_u64()), (Some(true), Some(u64::from(pid))), "{told}");
    world.nex(&["stop", "servicesh"]).expect(0);
    let children = || {
        let own = |status: &str| status.lines().any(|line| line == format!("PPid:\t{pid}"));
        let all = fs::read_dir("/proc").unwrap().flatten();
        let statuses = all.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
        statuses.filter(|status| own(status) && status.contains("State:\tZ")).count()
    };
    world.eventually("nobody waits to be reaped", || children() == 0);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn what_a_node_cannot_become_is_refused_before_anything_is_begun() {
    let world = World::with_nats();
    let config = world.file("node.json", r#"{"no_sandbox": true, "workload_types": ["native"]}"#);
    let state = world.text_path("state");
    let upgrade = ["node", "upgrade", "--state-dir", &state];
    world.nex(&upgrade).expect(1).says(&["no node runs on the state directory", "next: start one"]);
    let node = world.node_up_in("bin", &["--config", &config]);
    let service = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &service]).expect(0);

    world.file("node.json", r#"{"no_sandbox": true, "workload_types": ["natif"]}"#);
    world.nex(&upgrade).expect(1).says(&["cannot run this node; nothing was changed", "natif", "next: "]);
    world.nex(&["node", "up", "--config", &config, "--check"]).expect(1).says(&["natif"]);
    world.file("node.json", r#"{"no_sandbox": true, "workload_types": ["native"]}"#);
    world.nex(&["node", "up", "--config", &config, "--check"]).expect(0).says(&["can be used"]);

    let nex = fs::read(dist_binary("nex")).unwrap();
    install(&world, "bin/nex", &older(&nex));
    world.nex(&upgrade).expect(1).says(&[
        "cannot run this node",
        "not 'nex-agent 0.0.0'",
        "install nex and nex-agent of one version",
    ]);
    install(&world, "bin/nex", b"#!/bin/sh\necho '{\"version\": \"9.0.0\", \"agent_protocol\": 99}'\n");
    world.nex(&upgrade).expect(1).says(&["nex v9.0.0 speaks protocol 99", "started anew", "next: `nex lameduck`"]);
    install(&world, "bin/nex", b"#!/bin/sh\necho '{\"version\": \"0.0.9\"}'\n");
    world.nex(&upgrade).expect(1).says(&["speaks an older protocol"]);
    install(&world, "bin/nex", b"#!/bin/sh\necho what\n");
    world.nex(&upgrade).expect(1).says(&["is no nex that can be upgraded to"]);
    fs::remove_file(world.path("bin/nex")).unwrap();
    world.nex(&upgrade).expect(1).says(&["cannot run"]);
    assert_eq!(world.ps()[0]["state"], "running");
    install(&world, "bin/nex", &nex);
    world.nex(&upgrade).expect(0);
    node.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

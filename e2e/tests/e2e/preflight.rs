//! `nex node preflight`: what a node needs, and whether it is here.

use nex_testkit::NatsOptions;
use serde_json::Value;

use crate::permissions::{documented, flags};
use crate::world::World;

fn check<'a>(checks: &'a Value, what: &str) -> &'a Value {
    let found = checks.as_array().unwrap().iter().find(|check| check["what"] == what);
    found.unwrap_or_else(|| panic!("no check of {what} in {checks}"))
}

#[test]
fn where_everything_is_there_the_list_says_so() {
    let world = World::with_nats();
    let ended = world.nex(&["node", "preflight", "--verbose"]).expect(0).says_not("⛔");
    let ended = ended.says(&["✅ Dependency Satisfied - ", "[nex-agent of this version]", "[process sandbox]", "searched: "]);
    let ended = ended.says(&["[demanded of deploys and stops]", "nothing that clients of 0.2.7 cannot offer"]);
    ended.says(&["[NATS with JetStream]", &world.url(), "[nats-server, for the internal bus]", &world.text_path("state")]);
    let checks = world.nex(&["node", "preflight", "--json"]).expect(0).json();
    for what in ["node configuration", "nex-agent of this version", "process sandbox", "state directory"] {
        assert_eq!(
            (&check(&checks, what)["satisfied"], &check(&checks, what)["required"]),
            (&true.into(), &true.into()),
            "{what}"
        );
    }
    assert_eq!(check(&checks, "NATS with JetStream")["satisfied"], true);
}

#[test]
fn what_is_missing_is_named_with_what_to_do_and_fails() {
    let mut world = World::new();
    let ended = world.nex(&["node", "preflight", "--agent", "/no/such/agent"]).expect(1);
    ended.says(&["⛔ Dependency Missing - nex-agent", "/no/such/agent", "   next: put nex-agent beside nex", "2 of "]);
    // Where somebody says it is and it is not, no node starts; who says nothing may have `nex up` start one.
    let ended = world.nex(&["node", "preflight"]).expect(1);
    ended.says(&["⛔ Dependency Missing - NATS with JetStream: no NATS server at", &world.url()]);
    world.nex(&["node", "up"]).expect(6);
    let old = world.file("bin/nats-server", "#!/bin/sh\necho nats-server: v2.10.26\n");
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = world.nex(&["node", "preflight", "--nats-server", &old]).expect(1);
    ended.says(&["⛔ Dependency Missing - nats-server, for the internal bus: ", "is NATS server 2.10.26, older than 2.12"]);
    let port = world.port().to_string();
    let ended = world.nex(&["up", "--port", &port, "--nats-server", &old]).expect(1);
    ended.says(&["is NATS server 2.10.26, older than 2.12", "install a newer one"]);
    world.unset("NEX_NATS_SERVER");
    world.set("PATH", "/no/such/directory");
    let ended = world.nex(&["node", "preflight"]).expect(1);
    ended.says(&["⛔ Dependency Missing - nats-server", "/no/such/directory", "   next: install NATS server"]);
    let checks = world.nex(&["node", "preflight", "--json"]).expect(1).json();
    let server = check(&checks, "nats-server, for the internal bus");
    assert_eq!((&server["satisfied"], server["next"].is_string()), (&false.into(), true));
    // Another program is not the agent of this version.
    let ended = world.nex(&["node", "preflight", "--agent", "/bin/true"]).expect(1);
    ended.says(&["⛔ Dependency Missing - nex-agent of this version: /bin/true"]);
}

/// What preflight says, and whether a node then starts, for the same arguments.
fn verdicts(world: &World, more: &[&str]) -> (i32, i32) {
    let preflight = world.nex(&[&["node", "preflight"], more].concat());
    let node = world.start(&[&["node", "up"], more].concat());
    match node.says_either("is ready", "error: ") {
        Ok(()) => (preflight.code, node.interrupt().code),
        Err(_) => (preflight.code, node.ends().code),
    }
}

#[test]
fn preflight_says_of_a_configuration_what_a_node_does_with_it() {
    let world = World::with_nats();
    for (text, code) in [
        (r#"{"sandbox": "auto"}"#, 0),
        (r#"{"sandbox": "auto", "machine_template": {"vcpu_count": 1, "memsize_mib": 256}}"#, 0),
        (r#"{"sandbox": "firecracker", "default_resource_dir": "/no/such"}"#, 1),
        (r#"{"isolation": {"floor": "microvm"}, "no_sandbox": true}"#, 1),
        (r#"{"host_services": {"services": {"http": {"enabled": true, "config": {"allow_privat": true}}}}}"#, 1),
        (r#"{"no_sandbox": true, "require": ["namespaces"]}"#, 0),
    ] {
        let config = world.file("node.json", text);
        assert_eq!(verdicts(&world, &["--config", &config]), (code, code), "{text}");
    }
    // Nothing of a rehearsal stays, and a node that runs is told of.
    let left = std::fs::read_dir(world.path("state")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with("preflight")).count(), 0);
    let node = world.node_up(&[]);
    world.nex(&["node", "preflight"]).expect(1).says(&["another node runs on the state directory"]);
    node.interrupt();
}

#[test]
fn preflight_names_every_permission_that_a_node_lacks() {
    let without = |lines: &[&str]| lines.iter().fold(documented(), |all, line| all.replacen(&format!("\"{line}\"\n"), "", 1));
    for (lacking, code) in [
        (&[][..], 0),
        (&["$NEX.PING", "$NEX.DEPLOY.*.*"], 1),
        (&["$NEX.events.>", "$JS.API.STREAM.INFO.OBJ_NEXCLIFILES", "$NEX.HISTORY.*.*.*"], 0),
    ] {
        let world = World::with_nats_like(NatsOptions { config: without(lacking), ..NatsOptions::default() });
        let user = flags("node");
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        let mut preflight = world.nex(&[&["node", "preflight"], user.as_slice()].concat()).expect(code);
        for line in lacking {
            preflight = preflight.says(&[line.split('*').next().unwrap().trim_end_matches('>')]);
        }
        assert_eq!(preflight.text().contains("all that a node needs"), lacking.is_empty(), "{}", preflight.text());
        assert_eq!(preflight.text().matches("permission on NATS").count(), lacking.len().max(1), "{}", preflight.text());
    }
}

#[test]
fn a_nats_without_jetstream_is_told_by_preflight_and_by_the_node() {
    let world = World::with_nats_like(NatsOptions { jetstream: false, ..NatsOptions::default() });
    world.nex(&["node", "preflight"]).expect(0).says(&["⚠️  Weaker without - NATS with JetStream: this NATS has no JetStream"]);
    let node = world.node_up(&[]);
    node.waits_for("this NATS has no JetStream, without which nothing can be deployed");
    node.interrupt();
}

#[test]
fn a_broken_configuration_and_what_has_no_effect_are_checks_too() {
    let world = World::with_nats();
    let config = world.file("node.json", r#"{"tag": {}}"#);
    let ended = world.nex(&["node", "preflight", "--config", &config]).expect(1);
    ended.says(&["⛔ Dependency Missing - node configuration", "Did you mean 'tags'?"]);
    let config = world.file("node.json", r#"{"no_sandbox": true, "public_nats_server": {}}"#);
    let ended = world.nex(&["node", "preflight", "--config", &config]).expect(0);
    ended.says(&["⚠️  Weaker without - configuration: public_nats_server has no effect"]);
}

#[test]
fn init_writes_a_starter_once_and_a_node_takes_it() {
    let world = World::with_nats();
    world.nex(&["node", "preflight", "--init", "nosandbox"]).expect(0).says(&["wrote config.json"]);
    let starter = std::fs::read_to_string(world.path("config.json")).unwrap();
    let read: Value = serde_json::from_str(&starter).unwrap();
    assert_eq!((&read["no_sandbox"], &read["tags"]["simple"]), (&true.into(), &"true".into()));
    let ended = world.nex(&["node", "preflight", "--init", "sandbox"]).expect(0);
    ended.says(&["config.json exists and is kept"]);
    assert_eq!(std::fs::read_to_string(world.path("config.json")).unwrap(), starter);
    let node = world.node_up(&[]);
    assert_eq!(world.nodes()[0]["tags"]["simple"], "true");
    node.interrupt().expect(0);
    let other = world.text_path("other.json");
    let ended = world.nex(&["node", "preflight", "--init", "sandbox", "--config", &other]).expect(0);
    // A node does without: "auto" is what works.
    ended.says(&["wrote ", "⚠️  Weaker without - kernel of the guests: ", "⚠️  Weaker without - root image of the guests: "]);
}

#[test]
fn flags_of_0_2_7_are_taken_and_say_when_they_have_no_effect() {
    let world = World::with_nats();
    let ended =
        world.nex(&["node", "preflight", "--force", "--verify", "--install_version", "0.2.7", "--cni_ns", "9.9.9.9", "--check"]);
    ended.expect(0).says(&["--install_version has no effect", "--cni_ns has no effect"]);
    assert!(!world.path("home/.local").exists(), "--check installs nothing");
}

/// A configuration with microVMs whose resources are in this world.
fn qemu(world: &World) -> String {
    let config =
        serde_json::json!({"sandbox": "qemu", "default_resource_dir": world.path("resources"), "workload_types": ["native"]});
    world.file("qemu.json", config.to_string())
}

#[test]
fn what_microvms_lack_is_listed_and_installed_only_on_demand() {
    let world = World::new();
    let config = qemu(&world);
    let preflight = |more: &[&str], code| world.nex(&[&["node", "preflight", "--config", &config], more].concat()).expect(code);
    let ended =
        preflight(&[], 1).says(&["⛔ Dependency Missing - kernel of the guests: ", &world.text_path("resources/vmlinux")]);
    let ended = ended.says(&["   next: run 'nex node preflight --force' to install it", "pinned by its SHA-256"]);
    ended.says(&["⛔ Dependency Missing - root image of the guests: ", "'nex rootfs'"]);
    assert!(!world.path("resources").exists(), "nobody asked for anything to be installed");
    // The image is built, the kernel cannot be had: the mirror has none.
    std::fs::create_dir(world.path("mirror")).unwrap();
    let mirror = world.text_path("mirror");
    let ended =
        preflight(&["--yes", "--mirror", &mirror], 1).says(&["cannot install kernel of the guests: cannot copy ", ".whl"]);
    ended.says(&["built ", "[root image of the guests]", "⛔ Dependency Missing - kernel of the guests"]);
    let checks = preflight(&["--json"], 1).json();
    assert_eq!(check(&checks, "root image of the guests")["found"], world.text_path("resources/rootfs.img"));
    assert_eq!(check(&checks, "kernel of the guests")["satisfied"], false);
    assert!(checks.as_array().unwrap().iter().all(|check| check["what"] != "process sandbox"), "{checks}");
    // An image with another agent is none for this node, and is built anew.
    std::fs::write(world.path("other-agent"), b"").unwrap();
    let echo = nex_testkit::dist_binary("echo-service");
    let image = world.text_path("resources/rootfs.img");
    world.nex(&["rootfs", "--agent", echo.to_str().unwrap(), "-o", &image]).expect(0);
    preflight(&["--check", "--force"], 1).says(&["root image of the guests: ", "holds another nex-agent"]);
    preflight(&["--force", "--mirror", &mirror], 1).says(&["built ", "[root image of the guests]"]);
}

#[test]
fn the_kernel_comes_from_a_mirror_and_is_verified() {
    const NAME: &str = "the_kernel_comes_from_a_mirror_and_is_verified";
    let Some(mirror) = std::env::var_os("NEX_MIRROR") else { nex_testkit::skip!(NAME, "no kernel: NEX_MIRROR is not set") };
    let mut world = World::with_nats();
    world.set("NEX_MIRROR", mirror.to_str().unwrap());
    let config = qemu(&world);
    let preflight = |more: &[&str]| world.nex(&[&["node", "preflight", "--config", &config], more].concat());
    let ended = preflight(&["--yes", "--verify"]);
    if ended.text().contains("Missing - QEMU") || ended.text().contains("Missing - nft") {
        nex_testkit::skip!(NAME, "no QEMU or nft");
    }
    ended.expect(0).says(&["installed ", "[kernel of the guests, as it was installed]", "[root image of the guests]"]);
    let mut other = std::fs::read(world.path("resources/vmlinux")).unwrap();
    other.push(0);
    std::fs::write(world.path("resources/vmlinux"), other).unwrap();
    preflight(&["--verify"]).expect(1).says(&["another file than the one pinned"]);
    preflight(&["--verify", "--force"]).expect(0).says(&["installed "]);
}

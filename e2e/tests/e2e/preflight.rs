//! `nex node preflight`: what a node needs, and whether it is here.

use serde_json::Value;

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
    ended.says(&["⛔ Dependency Missing - nex-agent", "/no/such/agent", "   next: put nex-agent beside nex", "1 of "]);
    // A NATS server may be somewhere else, or be started later.
    world
        .nex(&["node", "preflight"])
        .expect(0)
        .says(&["⚠️  Weaker without - NATS with JetStream: no NATS server at", &world.url()]);
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

#[test]
fn a_broken_configuration_and_what_has_no_effect_are_checks_too() {
    let world = World::new();
    let config = world.file("node.json", r#"{"tag": {}}"#);
    let ended = world.nex(&["node", "preflight", "--config", &config]).expect(1);
    ended.says(&["⛔ Dependency Missing - node configuration", "Did you mean 'tags'?"]);
    let config = world.file("node.json", r#"{"no_sandbox": true, "cni": {"network_name": "fcnet"}}"#);
    let ended = world.nex(&["node", "preflight", "--config", &config]).expect(0);
    ended.says(&["⚠️  Weaker without - configuration: cni has no effect"]);
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
    world.nex(&["node", "preflight", "--init", "sandbox", "--config", &other]).expect(0).says(&["wrote ", "no microVM sandbox"]);
}

#[test]
fn flags_of_0_2_7_that_installed_things_are_taken_and_have_no_effect() {
    let world = World::new();
    let ended =
        world.nex(&["node", "preflight", "--force", "--verify", "--install_version", "0.2.7", "--cni_ns", "9.9.9.9", "--check"]);
    ended.expect(0).says(&["preflight installs nothing"]);
}

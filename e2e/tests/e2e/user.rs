//! Without privileges: everything works, confined by a user namespace, and what is missing is said.

use nex_testkit::{dist_binary, guest, skip};
use nix::unistd::geteuid;

use crate::crash::running_on;
use crate::leftovers::Watch;
use crate::world::World;

/// `nobody`
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_runs_a_node_and_all_kinds_of_workloads() {
    let mut world = World::new();
    if geteuid().is_root() {
        world.run_as(NOBODY);
        if let Err(error) = world.try_nex(&["--version"]) {
            skip!("an_ordinary_user_runs_a_node", format!("another user cannot run {}: {error}", dist_binary("nex").display()));
        }
    }
    // There is no NATS yet, which is told as well.
    let url = world.url();
    world.unset("NATS_URL");
    let preflight = world.nex(&["node", "preflight", "--json"]);
    world.set("NATS_URL", &url);
    if preflight.code != 0 {
        skip!("an_ordinary_user_runs_a_node", format!("this host confines nothing for ordinary users: {}", preflight.text()));
    }
    let checks = preflight.json();
    let sandbox = checks.as_array().unwrap().iter().find(|check| check["what"] == "process sandbox").unwrap();
    let without_cgroup = sandbox["found"].as_str().unwrap().contains("no cgroup");

    let up = world.up(&[]);
    let mut watch = Watch::new(up.pid());
    let script = world.file("echo.js", guest::ECHO_JS);
    let module = world.file("echo.wasm", guest::assemble(guest::ECHO_WAT));
    let service = dist_binary("echo-service");
    world.nex(&["devrun", &script]).expect(0);
    world.nex(&["devrun", &module]).expect(0);
    world.nex(&["devrun", service.to_str().unwrap(), &format!("NATS_URL={}", world.url())]).expect(0);
    world.nex(&["call", "echojs", "hi"]).expect(0).says(&[r#""payload":"hi""#]);
    world.nex(&["call", "echowasm", "hi"]).expect(0).says(&["hi"]);
    world.eventually_answers("svc.echo");
    let tags = world.nodes()[0]["tags"].clone();
    let missing = tags["nex.sandbox.missing"].as_str().unwrap_or_default();
    assert_eq!(missing.contains("cgroup"), without_cgroup, "{tags}");
    if without_cgroup {
        world.nex(&["node", "preflight"]).says(&["⚠️  Weaker without - confinement: cgroup", "another node runs"]);
    }
    watch.look();
    up.kill9();
    let (services, _) = running_on(&watch, &world);
    assert_eq!(services.len(), 1);
    let up = world.up(&[]);
    assert_eq!(running_on(&watch, &world).0, services, "another node's process takes it over");
    world.eventually_answers("svc.echo");
    world.nex(&["call", "echojs", "hi"]).expect(0).says(&[r#""payload":"hi""#]);
    watch.look();
    up.interrupt().expect(0);
    assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
    assert_eq!(world.processes(), []);
}

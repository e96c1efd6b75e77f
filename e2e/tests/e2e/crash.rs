//! `kill -9` of `nex up`: what runs goes on, and the next one takes it over and clears up the rest.

use std::net::TcpStream;

use nex_testkit::{dist_binary, guest};
use serde_json::Value;

use crate::leftovers::Watch;
use crate::world::World;

fn ids(mut workloads: Vec<Value>) -> Vec<(String, String)> {
    workloads.sort_by_key(|workload| workload["name"].to_string());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    workloads.iter().map(|workload| (text(&workload["name"]), text(&workload["id"]))).collect()
}

/// The native services and internal buses of a killed node that still run.
pub(crate) fn running_on(watch: &Watch, world: &World) -> (Vec<String>, Vec<String>) {
    let left = watch.left(&world.path("state"));
    let named = |name: &str| left.iter().filter(|it| it.starts_with("process ") && it.ends_with(name)).cloned().collect();
    (named(" artifact"), named(" nats-server"))
}

#[test]
fn after_kill9_workloads_run_on_and_the_next_one_takes_them_over_and_removes_the_rest() {
    let world = World::new();
    let up = world.up(&[]);
    let mut watch = Watch::new(up.pid());
    let script = world.file("echo.js", guest::ECHO_JS);
    let service = dist_binary("echo-service");
    world.nex(&["devrun", &script, "--trigger_subject", "fn.echo"]).expect(0);
    world.nex(&["devrun", service.to_str().unwrap(), &format!("NATS_URL={}", world.url())]).expect(0);
    world.eventually_answers("svc.echo");
    let (before, node) = (ids(world.ps()), world.node_id());
    watch.look();
    up.kill9();
    assert!(TcpStream::connect(("127.0.0.1", world.port())).is_ok(), "the embedded server has nobody to stop it");
    let (services, servers) = running_on(&watch, &world);
    assert_eq!((services.len(), servers.len()), (1, 2), "the service, its bus, and the embedded server");

    let up = world.up(&[]);
    let (kept, buses) = running_on(&watch, &world);
    assert_eq!((&kept, buses.len()), (&services, 1), "the service and its bus");
    world.eventually_answers("svc.echo");
    world.eventually_answers("fn.echo");
    assert_eq!((ids(world.ps()), world.node_id()), (before, node), "the same workloads on the same node");

    let mut second = Watch::new(up.pid());
    second.look();
    up.interrupt().expect(0);
    for watch in [watch, second] {
        assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
    }
    assert_eq!(world.processes(), []);
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_the_next_start_clears_up() {
    let world = World::new();
    let up = world.up(&[]);
    let mut watch = Watch::new(up.pid());
    watch.look();
    up.signal(nix::sys::signal::Signal::SIGINT);
    up.signal(nix::sys::signal::Signal::SIGTERM);
    // Both may arrive before the first is looked at: then it stops in order, and so well.
    let ended = up.ends();
    assert!(ended.code == 0 || (ended.code == 1 && ended.stderr.contains("stopped at once")), "{ended:?}");
    let up = world.up(&[]);
    assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
    up.interrupt().expect(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn when_the_embedded_server_dies_so_does_nex_up_and_says_why() {
    let world = World::new();
    let up = world.up(&[]);
    let mut watch = Watch::new(up.pid());
    watch.look();
    let config = world.text_path("state/nats/server.conf");
    let (server, _) = world.processes().into_iter().find(|(_, line)| line.contains(&config)).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGKILL).unwrap();
    up.ends().expect(1).says(&["the embedded NATS server died", "next: "]);
    assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
}

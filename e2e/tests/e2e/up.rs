//! `nex up`: the newcomer's door.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use nex_testkit::guest;
use nix::sys::signal::Signal;

use crate::leftovers::Watch;
use crate::running::Running;
use crate::world::World;

fn entries(path: &std::path::Path) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

#[test]
fn it_starts_nats_and_a_node_and_ctrl_c_leaves_nothing() {
    let world = World::new();
    let up = world.up(&[]);
    let mut watch = Watch::new(up.pid());
    watch.look();
    let welcome = up.out();
    let devrun = format!("nex -s {} devrun ./echo.js", world.url());
    for part in ["an embedded NATS server", &world.url(), &devrun, "Ctrl-C stops everything"] {
        assert!(welcome.contains(part), "'{part}' in {welcome}");
    }
    let script = world.file("echo.js", guest::ECHO_JS);
    world.nex(&["devrun", &script]).expect(0);
    world.nex(&["call", "echojs", "hi"]).expect(0).says(&[r#""payload":"hi""#]);
    watch.look();
    assert!(watch.names().contains("2 nats-server"), "one is embedded, one is the node's own: {}", watch.names());

    up.interrupt().expect(0).says(&["SIGINT received", "node stopped"]);
    assert_eq!(watch.left(&world.path("state")), Vec::<String>::new());
    assert_eq!(world.processes(), []);
    assert_eq!(entries(&world.path("state/node/agents")), 0);
    assert!(TcpStream::connect(("127.0.0.1", world.port())).is_err(), "nobody listens any more");
}

#[test]
fn what_jetstream_holds_survives_a_restart() {
    let world = World::new();
    let up = world.up(&[]);
    let client = world.client();
    world.block_on(async {
        let jetstream = async_nats::jetstream::new(client);
        let bucket = async_nats::jetstream::kv::Config { bucket: "MINE".into(), ..Default::default() };
        jetstream.create_key_value(bucket).await.unwrap().put("key", "value".into()).await.unwrap();
    });
    let node = world.node_id();
    up.interrupt().expect(0);

    let _up = world.up(&[]);
    let client = world.client();
    world.block_on(async {
        let jetstream = async_nats::jetstream::new(client);
        let bucket = jetstream.get_key_value("MINE").await.unwrap();
        assert_eq!(bucket.get("key").await.unwrap().unwrap(), "value");
    });
    assert_eq!(world.node_id(), node, "the node keeps its identity");
}

#[test]
fn where_nats_answers_it_starts_none() {
    let world = World::with_nats();
    let up = world.start(&["up", "--json"]);
    up.waits_for("\"ready\"");
    let ready: serde_json::Value = serde_json::from_str(up.out().lines().next().unwrap()).unwrap();
    assert_eq!((&ready["ready"], &ready["embedded"]), (&true.into(), &false.into()));
    assert_eq!(ready["server"], world.url());
    assert_eq!(ready["node"], world.node_id());
    let mut watch = Watch::new(up.pid());
    watch.look();
    assert!(watch.names().contains("1 nats-server"), "the node's own: {}", watch.names());
    up.interrupt().expect(0);
    assert!(TcpStream::connect(("127.0.0.1", world.port())).is_ok(), "the server is not ours to stop");
}

#[test]
fn the_commands_that_it_suggests_reach_it_whatever_context_is_selected() {
    let mut world = World::new();
    world.unset("NATS_URL");
    world.file("home/config/nats/context/production.json", r#"{"url":"nats://127.0.0.1:1","user":"me","password":"pw"}"#);
    let selection = world.file("home/config/nats/context.txt", "production");
    let suggested = |up: &Running| {
        let welcome = up.out();
        let line = welcome.lines().find(|line| line.contains(" ps ")).unwrap_or_else(|| panic!("{welcome}"));
        line.split_whitespace().skip(1).take_while(|word| *word != "see").map(str::to_owned).collect::<Vec<_>>()
    };
    let works = |up: &Running| {
        let words = suggested(up);
        world.nex(&words.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
    };
    let up = world.up(&[]);
    works(&up);
    assert_eq!(std::fs::read_to_string(&selection).unwrap(), "production");
    up.interrupt().expect(0);
    // That of a `nex up` that does not run gives way.
    let gone = r#"{"description":"the NATS server of nex up","url":"nats://127.0.0.1:1","nkey":"/gone"}"#;
    world.file("home/config/nats/context/nex-1.json", gone);
    std::fs::write(&selection, "nex-1").unwrap();
    let up = world.up(&[]);
    works(&up);
    world.nex(&["ps"]).expect(0);
    assert_eq!(std::fs::read_to_string(&selection).unwrap(), format!("nex-{}", world.port()));
}

#[test]
fn a_service_manager_and_a_terminal_that_closes_stop_it_in_order() {
    let world = World::new();
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let up = world.up(&[]);
        up.signal(signal);
        up.ends().expect(0).says(&[signal.as_str(), "node stopped"]);
        assert_eq!(world.processes(), [], "{signal}");
    }
    // Who says `nohup` means it.
    let port = world.port().to_string();
    let nex = nex_testkit::dist_binary("nex");
    let line = ["-c", "trap '' HUP; exec \"$0\" up --port \"$1\"", nex.to_str().unwrap(), &port];
    let up = world.start_command(world.command("sh", &line));
    up.waits_for("Ctrl-C stops everything");
    up.signal(Signal::SIGHUP);
    assert_eq!(world.nodes().len(), 1);
    up.interrupt().expect(0);
}

#[test]
fn a_second_one_on_the_same_state_directory_is_refused() {
    let world = World::new();
    let up = world.up(&[]);
    let state = world.text_path("state");
    let port = world.port().to_string();
    world.nex(&["up", "--port", &port]).expect(1).says(&["another node runs on the state directory", &state, "--state-dir"]);
    world.nex(&["node", "up"]).expect(1).says(&["another node runs on the state directory", &state]);
    assert_eq!(world.nodes().len(), 1);
    up.interrupt().expect(0);
}

#[test]
fn a_port_that_something_else_has_is_named() {
    let world = World::new();
    let silent = TcpListener::bind(("127.0.0.1", world.port())).unwrap();
    let answering = std::thread::spawn(move || {
        // Until the test's own last connection, which says so.
        for stream in silent.incoming() {
            let mut stream = stream.unwrap();
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
            let mut first = [0];
            if std::io::Read::read(&mut stream, &mut first).is_ok_and(|count| count == 1) && first == *b"!" {
                break;
            }
        }
    });
    let port = world.port().to_string();
    let ended = world.nex(&["up", "--port", &port]);
    TcpStream::connect(("127.0.0.1", world.port())).unwrap().write_all(b"!").unwrap();
    answering.join().unwrap();
    ended.expect(6).says(&["error: something that is no NATS server has port", &port, "next: ", "--port"]);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_remote_server_that_does_not_answer_is_not_replaced() {
    let world = World::new();
    world.nex(&["up", "-s", "nats://127.0.0.1:1,nats://127.0.0.1:2"]).expect(6).says(&["only started on this machine"]);
}

#[test]
fn a_newcomer_gets_a_reply() {
    let mut world = World::new();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("bench/newcomer.sh");
    world.set("NEWCOMER_PORT", &world.port().to_string());
    let ended = world.end(world.command(script.to_str().unwrap(), &[])).expect(0);
    // How long it takes is for people to judge: docs/benchmarks.md.
    ended.says(&["first reply after "]);
}

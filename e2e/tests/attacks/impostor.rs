//! Somebody on the host, a jailed workload that shares its network for one, who takes the internal bus's port in the pause after its death.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, Request, Subscriber};
use futures::{FutureExt as _, StreamExt as _};
use nex_testkit::{NatsOptions, NatsServer, guest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::running::Running;
use crate::world::World;

/// A node that relays a function, for its own connection has credentials.
fn relaying_node() -> (World, Running) {
    let config = "authorization { user: me, password: s3cret }\n".to_owned();
    let mut world = World::with_nats_like(NatsOptions { config, ..NatsOptions::default() });
    world.set("NATS_USER", "me");
    world.set("NATS_PASSWORD", "s3cret");
    let file = world.file("node.json", json!({"sandbox": "process", "workload_types": ["v8"]}).to_string());
    let node = world.node_up(&["--config", &file]);
    let script = world.file("greet.mjs", guest::GREET_MJS);
    world.nex(&["devrun", &script, "--trigger_subject", "fn.greet"]).expect(0);
    world.nex(&["call", "fn.greet", "you"]).expect(0).says(&["Hello, you!"]);
    (world, node)
}

/// Process and address of the bus, once it listens.
fn bus(world: &World) -> Option<(Pid, SocketAddr)> {
    let file = std::fs::read_dir(world.path("state/node/bus/ports")).ok()?.flatten().last()?;
    let ports: Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
    let name = file.path().file_stem()?.to_str()?.to_owned();
    let pid = name.rsplit_once('_')?.1.parse().ok()?;
    Some((Pid::from_raw(pid), ports["nats"][0].as_str()?.rsplit_once("//")?.1.parse().ok()?))
}

/// Kills the bus until its port is ours.
fn take_port(world: &World, address: SocketAddr) -> TcpListener {
    let mut taken = None;
    world.eventually("the port of the bus can be had", || {
        if let Some((pid, _)) = bus(world) {
            kill(pid, Signal::SIGKILL).ok();
        }
        taken = TcpListener::bind(address).ok();
        taken.is_some()
    });
    taken.unwrap()
}

/// The port of the bus, with a server behind it that lets everybody in and is listened to.
struct Impostor {
    server: NatsServer,
    spy: Client,
    heard: Subscriber,
    /// First bytes of everybody who came.
    greetings: Arc<Mutex<Vec<Vec<u8>>>>,
    over: Arc<AtomicBool>,
    address: SocketAddr,
    gate: std::thread::JoinHandle<()>,
}

impl Impostor {
    fn instead_of_the_bus(world: &World, certified: Vec<String>) -> Self {
        let (_, address) = bus(world).unwrap();
        let server = world.block_on(NatsServer::start_with(NatsOptions { certified, ..NatsOptions::default() }));
        let spy = world.block_on(server.client());
        let heard = world.block_on(async {
            let heard = spy.subscribe(">").await.unwrap();
            spy.flush().await.unwrap();
            heard
        });
        let (greetings, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (listener, port) = (take_port(world, address), server.port());
        let (told, ended) = (Arc::clone(&greetings), Arc::clone(&over));
        let gate = std::thread::spawn(move || {
            let mut guests = Vec::new();
            for guest in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                guests.extend([guest.try_clone().unwrap(), pass(guest, port, &told)]);
            }
            // Whoever is still here is sent away.
            guests.iter().for_each(|guest| drop(guest.shutdown(std::net::Shutdown::Both)));
        });
        Self { server, spy, heard, greetings, over, address, gate }
    }

    fn visits(&self) -> usize {
        self.greetings.lock().unwrap().len()
    }

    fn leave(self) -> (Vec<Vec<u8>>, NatsServer) {
        self.over.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).unwrap();
        self.gate.join().unwrap();
        (self.greetings.lock().unwrap().clone(), self.server)
    }
}

/// Passes on what a guest and the server say to each other.
fn pass(guest: TcpStream, port: u16, told: &Arc<Mutex<Vec<Vec<u8>>>>) -> TcpStream {
    use std::io::{Read as _, Write as _};
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut from_guest, mut to_guest) = (guest.try_clone().unwrap(), guest);
    let (mut from_server, mut to_server) = (server.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_guest).ok());
    let told = Arc::clone(told);
    std::thread::spawn(move || {
        let mut first = vec![0; 16 * 1024];
        let count = from_guest.read(&mut first).unwrap_or_default();
        first.truncate(count);
        to_server.write_all(&first).ok();
        told.lock().unwrap().push(first);
        std::io::copy(&mut from_guest, &mut to_server).ok();
    });
    server
}

fn an_impostor_gets_nothing(world: &World, certified: Vec<String>) {
    let agents: Vec<String> = std::fs::read_dir(world.path("state/node/agents"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let mut impostor = Impostor::instead_of_the_bus(world, certified);
    // The node, the agent of the function and a warm one, again and again.
    world.eventually("everybody comes to the impostor", || impostor.visits() >= 3);
    // The caller's message is for the function, and what asks is for the node and its agents.
    world.nex(&["call", "fn.greet", "my secret", "--timeout", "300ms"]).says_not("forged");
    let answers = AtomicUsize::new(0);
    for agent in &agents {
        for subject in [format!("agentint.{agent}.ping"), format!("hostint.{agent}.handshake")] {
            let request = Request::new().payload("{}".into()).timeout(Some(Duration::from_millis(300)));
            // Its own ear hears what it asks; an answer would be somebody else's.
            let answer = world.block_on(impostor.spy.send_request(subject, request));
            answers.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
        }
    }
    assert_eq!(answers.into_inner(), 0, "somebody obeys the impostor");
    let own = |subject: &str| {
        agents.iter().any(|it| [format!("agentint.{it}.ping"), format!("hostint.{it}.handshake")].contains(&subject.to_owned()))
    };
    while let Some(Some(message)) = impostor.heard.next().now_or_never() {
        let is_own = own(&message.subject) && message.payload == "{}";
        assert!(is_own, "the impostor hears {}: {:?}", message.subject, message.payload);
    }
    let (greetings, _server) = impostor.leave();
    // A TLS handshake, and no word of NATS.
    let is_tls = |bytes: &Vec<u8>| bytes.is_empty() || bytes[0] == 0x16;
    assert!(greetings.iter().all(is_tls), "{:?}", greetings.iter().map(|it| String::from_utf8_lossy(it)).collect::<Vec<_>>());
}

#[test]
fn whoever_takes_the_port_of_the_bus_learns_nothing_and_is_obeyed_in_nothing() {
    let (world, node) = relaying_node();
    let deployed = world.ps();
    let host = bus(&world).unwrap().1.ip().to_string();
    // A plain server; and one with a certificate for the very address, but not the one that is known.
    for certified in [Vec::new(), vec![host, "127.0.0.1".to_owned()]] {
        an_impostor_gets_nothing(&world, certified);
        world.eventually_answers("fn.greet");
    }
    let ids = |of: &[Value]| of.iter().map(|it| it["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.ps()), ids(&deployed));
    node.interrupt().expect(0);
}

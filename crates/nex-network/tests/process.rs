//! What a process in its own namespace can reach, tested from inside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nex_network::{Allow, Attachment, Network, Policy};
use support::{LONG, Netns, SHORT, config, connects, host_state, in_a_host, inside, listen, obstacle, run, soon, unique};

/// A process's namespace, held open.
struct Process {
    attachment: Attachment,
    netns: Arc<OwnedFd>,
}

impl Process {
    async fn attach(network: &Network, id: &str) -> Self {
        let (attachment, netns) = network.attach_process(id, soon()).await.unwrap();
        Self { attachment, netns }
    }

    fn run_in<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&PathBuf::from(format!("/proc/self/fd/{}", self.netns.as_raw_fd())), function)
    }

    fn reaches(&self, address: Ipv4Addr, port: u16) -> bool {
        self.run_in(move || connects(address, port, LONG))
    }

    fn misses(&self, address: Ipv4Addr, port: u16) -> bool {
        !self.run_in(move || connects(address, port, SHORT))
    }
}

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A net beyond the host, with a server on two ports.
async fn outside_net() -> Netns {
    let outside = Netns::new().await;
    run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "outside", "netns", &outside.0]).await;
    run("ip", &["address", "add", "10.77.0.1/24", "dev", "uplink"]).await;
    run("ip", &["link", "set", "uplink", "up"]).await;
    std::fs::write("/proc/sys/net/ipv4/conf/uplink/forwarding", "1").unwrap();
    outside.ip("address add 10.77.0.2/24 dev outside").await;
    outside.ip("link set outside up").await;
    for port in [7_000, 7_001, 7_002] {
        inside(&outside.path(), move || listen(Ipv4Addr::UNSPECIFIED, port));
    }
    outside
}

#[test]
fn a_process_reaches_what_policy_allows_and_nothing_else() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_process_reaches_what_policy_allows_and_nothing_else", why);
    }
    in_a_host(|| async {
        let _world = outside_net().await;
        let before = host_state().await;
        let dir = tempfile::tempdir().unwrap();
        let [nats, named, closed] = [(); 3].map(|()| listen(Ipv4Addr::LOCALHOST, 0));
        let on_uplink = listen(UPLINK, 0);
        let everywhere = listen(Ipv4Addr::UNSPECIFIED, 0);
        let allow = vec![Allow::Net { net: WORLD.into(), port: Some(7_000) }];
        let servers = [(Ipv4Addr::LOCALHOST, nats), (WORLD, 7_002)].map(|(ip, port)| std::net::SocketAddrV4::new(ip, port));
        let policy = Policy { allow, host_ports: vec![named], servers: servers.to_vec() };
        let network = Network::open(config(&unique(), dir.path(), policy), soon()).await.unwrap();
        let gateway = network.gateway();
        let bus = listen(gateway, 0);
        network.permit_gateway_port(bus).await.unwrap();
        let (one, two) = (Process::attach(&network, "one").await, Process::attach(&network, "two").await);

        assert!(one.reaches(gateway, bus), "the bus");
        assert!(one.reaches(Ipv4Addr::LOCALHOST, nats), "the NATS server on the host's loopback, at its own loopback");
        assert!(one.reaches(gateway, nats), "and on the gateway");
        assert!(one.reaches(Ipv4Addr::LOCALHOST, named), "a port that the operator named");
        assert!(one.misses(Ipv4Addr::LOCALHOST, closed), "another port of the host's loopback");
        assert!(one.misses(gateway, closed) && one.misses(gateway, everywhere), "another port of the host");
        assert!(one.misses(UPLINK, on_uplink), "another address of the host");
        assert!(one.reaches(WORLD, 7_000), "an allowed destination");
        assert!(one.reaches(WORLD, 7_002), "a server");
        assert!(one.misses(WORLD, 7_001), "another port there");
        let theirs = two.run_in(|| listen(Ipv4Addr::UNSPECIFIED, 0));
        assert!(one.misses(two.attachment.address, theirs), "a neighbour");
        let own = one.run_in(|| listen(Ipv4Addr::LOCALHOST, 0));
        assert!(one.reaches(Ipv4Addr::LOCALHOST, own), "its own loopback");
        assert!(two.misses(Ipv4Addr::LOCALHOST, own), "which is nobody else's");

        network.restrict(&one.attachment).await.unwrap();
        assert!(one.reaches(gateway, bus), "the bus, restricted");
        assert!(one.reaches(Ipv4Addr::LOCALHOST, nats) && one.reaches(WORLD, 7_002), "servers, restricted");
        assert!(one.misses(WORLD, 7_000) && one.misses(Ipv4Addr::LOCALHOST, named), "nothing else, restricted");
        assert!(two.reaches(WORLD, 7_000), "and nobody else is");

        assert!(network.detach(&one.attachment, soon()).await);
        drop(one);
        network.close(soon()).await;
        drop(two);
        assert_eq!(host_state().await, before);
    });
}

#[test]
fn a_namespace_and_its_device_are_removed_with_its_last_holder() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_namespace_and_its_device_are_removed_with_its_last_holder", why);
    }
    in_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(&unique(), dir.path(), Policy::default()), soon()).await.unwrap();
        let process = Process::attach(&network, "one").await;
        let device = process.attachment.tap.clone();
        assert!(run("ip", &["-o", "link"]).await.contains(&device));
        drop(process);
        let gone = || async { !run("ip", &["-o", "link"]).await.contains(&device) };
        assert!(nex_testkit::eventually(LONG, gone).await, "the device is still there");
        network.close(soon()).await;
    });
}

#[test]
fn the_next_process_takes_over_a_connection_and_changes_what_it_reaches() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("the_next_process_takes_over_a_connection_and_changes_what_it_reaches", why);
    }
    in_a_host(|| async {
        let (dir, owner) = (tempfile::tempdir().unwrap(), unique());
        let [before, after] = [(); 2].map(|()| listen(Ipv4Addr::LOCALHOST, 0));
        let open = async |port| {
            let policy = Policy { host_ports: vec![port], ..Policy::default() };
            Network::open(config(&owner, dir.path(), policy), soon()).await.unwrap()
        };
        let killed = open(before).await;
        let process = Process::attach(&killed, "one").await;
        assert!(process.reaches(Ipv4Addr::LOCALHOST, before));
        drop(killed);
        let next = open(after).await;
        let netns = || process.netns.try_clone().unwrap();
        let unknown = Attachment { id: "other".to_owned(), ..process.attachment.clone() };
        assert_eq!(next.adopt_process(&unknown, netns(), soon()).await.unwrap(), None, "its device is another's");
        let elsewhere = Attachment { gateway: Ipv4Addr::LOCALHOST, ..process.attachment.clone() };
        assert_eq!(next.adopt_process(&elsewhere, netns(), soon()).await.unwrap(), None, "of another network");
        let adopted = next.adopt_process(&process.attachment, netns(), soon()).await.unwrap().unwrap();
        assert_eq!(adopted.loopback_ports.iter().collect::<Vec<_>>(), [&after]);
        assert_eq!(next.sweep(&std::collections::BTreeSet::new(), soon()).await, 0);
        assert!(process.reaches(Ipv4Addr::LOCALHOST, after), "a port of the next process's policy");
        assert!(process.misses(Ipv4Addr::LOCALHOST, before), "and none of the last one's");
        assert!(next.detach(&process.attachment, soon()).await);
        assert_eq!(next.adopt_process(&process.attachment, netns(), soon()).await.unwrap(), None, "it is gone");
        next.close(soon()).await;
    });
}

/// A server that sends back what it gets.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut text) = (stream.unwrap(), [0; 64]);
            while stream.read_exact(&mut text).is_ok() && stream.write_all(&text).is_ok() {}
        }
    });
    port
}

/// Median of the round trips of a small message.
fn round_trip(port: u16) -> Duration {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times: Vec<_> = (0..20_000)
        .map(|_| {
            let (start, mut text) = (Instant::now(), [7; 64]);
            stream.write_all(&text).unwrap();
            stream.read_exact(&mut text).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures and prints, asserts nothing: cargo test -p nex-network --test process -- --ignored --nocapture"]
fn what_a_namespace_costs() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("what_a_namespace_costs", why);
    }
    in_a_host(|| async {
        let (port, dir) = (echo(), tempfile::tempdir().unwrap());
        let servers = vec![std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
        let policy = Policy { servers, ..Policy::default() };
        let network = Network::open(config(&unique(), dir.path(), policy), soon()).await.unwrap();
        let (mut made, mut kept) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let start = Instant::now();
            kept.push(Process::attach(&network, &format!("p{round}")).await);
            made.push(start.elapsed());
        }
        made.sort_unstable();
        let (mut host, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            host.push(round_trip(port));
            inside.push(kept[0].run_in(move || round_trip(port)));
        }
        host.sort_unstable();
        inside.sort_unstable();
        let ratio = inside[2].as_secs_f64() / host[2].as_secs_f64();
        println!("attach {:?}; round trip on the host {:?}, from a namespace {:?}: {ratio:.2} x", made[10], host[2], inside[2]);
        drop(kept);
        network.close(soon()).await;
    });
}

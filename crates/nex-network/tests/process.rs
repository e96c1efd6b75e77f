//! What a process in a namespace of its own reaches and what not, tried from inside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

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

    fn inside<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&PathBuf::from(format!("/proc/self/fd/{}", self.netns.as_raw_fd())), function)
    }

    fn reaches(&self, address: Ipv4Addr, port: u16) -> bool {
        self.inside(move || connects(address, port, LONG))
    }

    fn misses(&self, address: Ipv4Addr, port: u16) -> bool {
        !self.inside(move || connects(address, port, SHORT))
    }
}

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A net beyond the host, with a server on two ports.
async fn world() -> Netns {
    let world = Netns::new().await;
    run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "world", "netns", &world.0]).await;
    run("ip", &["address", "add", "10.77.0.1/24", "dev", "uplink"]).await;
    run("ip", &["link", "set", "uplink", "up"]).await;
    std::fs::write("/proc/sys/net/ipv4/conf/uplink/forwarding", "1").unwrap();
    world.ip("address add 10.77.0.2/24 dev world").await;
    world.ip("link set world up").await;
    for port in [7_000, 7_001, 7_002] {
        inside(&world.path(), move || listen(Ipv4Addr::UNSPECIFIED, port));
    }
    world
}

#[test]
fn a_process_reaches_what_policy_allows_and_nothing_else() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_process_reaches_what_policy_allows_and_nothing_else", why);
    }
    in_a_host(|| async {
        let _world = world().await;
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
        let theirs = two.inside(|| listen(Ipv4Addr::UNSPECIFIED, 0));
        assert!(one.misses(two.attachment.address, theirs), "a neighbour");
        let own = one.inside(|| listen(Ipv4Addr::LOCALHOST, 0));
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
fn a_namespace_goes_with_its_last_holder_and_takes_its_device_along() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_namespace_goes_with_its_last_holder_and_takes_its_device_along", why);
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

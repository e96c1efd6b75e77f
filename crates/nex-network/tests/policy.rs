//! What a guest can reach, tested from inside a guest with both kinds of network.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use nex_network::{Allow, CniConfig, Network, NetworkKind, Policy};
use support::{Guest, LONG, Netns, config, host_state, in_a_host, inside, listen, obstacle, run, soon, unique};

const WORLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OTHER_WORLD: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// A net beyond the host, half of which may be allowed.
async fn outside_net() -> Netns {
    let outside = Netns::new().await;
    run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "outside", "netns", &outside.0]).await;
    for address in ["10.77.0.1/24", "10.78.0.1/24"] {
        run("ip", &["address", "add", address, "dev", "uplink"]).await;
    }
    run("ip", &["link", "set", "uplink", "up"]).await;
    // The operator's part: only this device forwards packets.
    std::fs::write("/proc/sys/net/ipv4/conf/uplink/forwarding", "1").unwrap();
    for address in [WORLD, OTHER_WORLD] {
        outside.ip(&format!("address add {address}/24 dev outside")).await;
    }
    outside.ip("link set outside up").await;
    outside
}

fn cni(plugins: &str) -> CniConfig {
    let (bin_path, conf_dir) = (vec![PathBuf::from(plugins)], PathBuf::from("/nonexistent"));
    CniConfig { network_name: "fcnet".into(), interface_name: "veth0".into(), bin_path, conf_dir, nameservers: vec![] }
}

#[test]
fn a_guest_on_a_tap_reaches_what_policy_allows_and_nothing_else() {
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_guest_on_a_tap_reaches_what_policy_allows_and_nothing_else", why);
    }
    in_a_host(|| check_policy(NetworkKind::Builtin));
}

#[test]
fn a_guest_behind_plugins_reaches_what_policy_allows_and_nothing_else() {
    let kind = NetworkKind::Cni(cni("/usr/lib/cni"));
    if let Some(lack) = nex_network::check(&kind).first() {
        nex_testkit::skip!("a_guest_behind_plugins_reaches_what_policy_allows_and_nothing_else", lack.what);
    }
    in_a_host(|| check_policy(kind));
}

async fn check_policy(kind: NetworkKind) {
    let outside = outside_net().await;
    let before = host_state().await;
    let dir = tempfile::tempdir().unwrap();
    let redirected = listen(Ipv4Addr::LOCALHOST, 0);
    let closed_on_loopback = listen(Ipv4Addr::LOCALHOST, 0);
    let uplink = Ipv4Addr::new(10, 77, 0, 1);
    let on_uplink = listen(uplink, 0);
    let allow = vec![
        Allow::Net { net: "10.77.0.0/24".parse().unwrap(), port: Some(7_000) },
        Allow::Net { net: uplink.into(), port: Some(on_uplink) },
    ];
    let policy = Policy { allow, host_ports: vec![redirected], ..Policy::default() };
    let network = Network::open(support::with_kind(config(&unique(), dir.path(), policy), kind), soon()).await.unwrap();
    let gateway = network.gateway();
    let permitted = listen(gateway, 0);
    let closed = listen(Ipv4Addr::UNSPECIFIED, 0);
    network.permit_gateway_port(permitted).await.unwrap();
    let [one, two] = [network.attach("one", None, soon()).await.unwrap(), network.attach("two", None, soon()).await.unwrap()];
    let (guest, other) = (Guest::boot(&one).await, Guest::boot(&two).await);

    assert!(guest.connects(gateway, permitted), "the bus");
    assert!(guest.connects(gateway, redirected), "the host's loopback by a redirected port");
    assert!(guest.is_refused(gateway, closed), "another port of the host");
    assert!(guest.is_refused(gateway, closed_on_loopback), "a port of the host's loopback that is not redirected");
    assert!(guest.is_refused(Ipv4Addr::LOCALHOST, permitted), "its own loopback is its own");
    assert!(guest.connects(uplink, on_uplink), "a named port of another address of the host");
    assert!(guest.is_refused(uplink, closed), "another port there");
    a_packet_to_the_hosts_loopback_is_dropped(&guest, redirected).await;

    let theirs = other.inside(|| listen(Ipv4Addr::UNSPECIFIED, 0));
    assert!(guest.is_refused(two.address, theirs), "another guest");
    assert!(support::connects(two.address, theirs, LONG), "the host itself reaches guests");

    for port in [7_000, 7_001] {
        inside(&outside.path(), move || listen(Ipv4Addr::UNSPECIFIED, port));
    }
    assert!(guest.connects(WORLD, 7_000), "an allowed destination");
    assert!(guest.is_refused(WORLD, 7_001), "another port there");
    assert!(guest.is_refused(OTHER_WORLD, 7_000), "another net");
    outside.ip(&format!("route add {} via 10.77.0.1", network.subnet())).await;
    assert!(
        !inside(&outside.path(), move || support::connects(two.address, theirs, support::SHORT)),
        "nobody from there comes in"
    );
    assert!(!inside(&outside.path(), move || support::connects(gateway, permitted, support::SHORT)), "nor reaches the gateway");

    forged_packets_are_dropped(&guest, &two.address, &outside).await;
    drop((guest, other));
    network.close(soon()).await;
    assert_eq!(host_state().await, before);
}

/// A route in the guest sends packets for 127.0.0.1 to the host, which must not take them.
async fn a_packet_to_the_hosts_loopback_is_dropped(guest: &Guest, port: u16) {
    guest.netns.ip("address flush dev lo").await;
    let routed = inside(&guest.netns.path(), || std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1"));
    routed.unwrap();
    guest.netns.ip(&format!("route add 127.0.0.0/8 via {} src {}", guest.attachment.gateway, guest.attachment.address)).await;
    assert!(guest.is_refused(Ipv4Addr::LOCALHOST, port), "the host's loopback, addressed as such");
}

/// Forged packets are sent first, so that they would arrive first.
async fn forged_packets_are_dropped(guest: &Guest, neighbour: &Ipv4Addr, outside: &Netns) {
    let socket = inside(&outside.path(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7_000))).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    for forged in [*neighbour, Ipv4Addr::new(198, 18, 0, 1), guest.attachment.gateway] {
        guest.netns.ip(&format!("address add {forged}/32 dev eth0")).await;
        guest.send(forged, WORLD, 7_000, "forged").unwrap();
    }
    guest.send(guest.attachment.address, WORLD, 7_000, "honest").unwrap();
    let mut text = [0; 16];
    let (length, from) = socket.recv_from(&mut text).unwrap();
    assert_eq!((&text[..length], from.ip()), (&b"honest"[..], Ipv4Addr::new(10, 77, 0, 1).into()), "and it is translated");
}

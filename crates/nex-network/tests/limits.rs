//! A guest's rate is held, and TCP settles at it instead of collapsing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nex_network::{CniConfig, Limits, Network, NetworkKind, Policy, Rate};
use support::{Guest, config, host_state, in_a_host, obstacle, soon, to, unique, with_kind};

const RATE: Rate = Rate { bytes_per_second: 4_000_000, burst_bytes: 200_000 };
/// Enough seconds that the burst does not count for much.
const BYTES: usize = 12_000_000;

#[test]
fn a_guest_gets_its_rate_each_way_and_no_more() {
    let mut kinds = vec![NetworkKind::Builtin];
    if let Some(why) = obstacle() {
        nex_testkit::skip!("a_guest_gets_its_rate_each_way_and_no_more", why);
    }
    let (bin_path, conf_dir) = (vec![PathBuf::from("/usr/lib/cni")], PathBuf::from("/nonexistent"));
    let cni = CniConfig { network_name: "n".into(), interface_name: "veth0".into(), bin_path, conf_dir, nameservers: vec![] };
    let cni = NetworkKind::Cni(cni);
    match nex_network::check(&cni).first() {
        None => kinds.push(cni),
        Some(lack) => nex_testkit::announce(&"a_guest_behind_plugins_gets_its_rate", &lack.what),
    }
    for kind in kinds {
        in_a_host(|| async {
            let dir = tempfile::tempdir().unwrap();
            let mut config = with_kind(config(&unique(), dir.path(), Policy::default()), kind);
            config.limits = Some(Limits { to_guest: Some(RATE), from_guest: Some(RATE) });
            let network = Network::open(config, soon()).await.unwrap();
            let listener = TcpListener::bind((network.gateway(), 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            network.permit_gateway_port(port).await.unwrap();
            let before = host_state().await;
            let guest = Guest::boot(&network.attach("vm", None, soon()).await.unwrap()).await;
            let gateway = network.gateway();
            for guest_sends in [true, false] {
                let inside = move || pass(TcpStream::connect(to(gateway, port)).unwrap(), guest_sends);
                let netns = guest.netns.path();
                let guest = std::thread::spawn(move || support::inside(&netns, inside));
                let host = pass(listener.accept().unwrap().0, !guest_sends);
                let received = if guest_sends { host } else { guest.join().unwrap() };
                println!("guest sends: {guest_sends}, bytes per second: {received:.0}, of the limit: {:.3}", received / 4e6);
                // The counted bytes are without headers; the burst comes on top.
                assert!((2_800_000.0..4_600_000.0).contains(&received), "guest sends: {guest_sends}, {received}");
            }
            assert!(network.detach(&guest.attachment, soon()).await);
            assert_eq!(host_state().await, before);
            network.close(soon()).await;
        });
    }
}

/// Sends or receives everything; bytes per second.
fn pass(mut stream: TcpStream, sends: bool) -> f64 {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let begin = Instant::now();
    let mut bytes = vec![7; 100_000];
    for _ in 0..BYTES / bytes.len() {
        if sends {
            stream.write_all(&bytes).unwrap();
        } else {
            stream.read_exact(&mut bytes).unwrap();
        }
    }
    f64::from(u32::try_from(BYTES).unwrap()) / begin.elapsed().as_secs_f64()
}

//! Connections are unique, found again after a crash, and removed; devices of others stay.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_network::{Allow, Attachment, CniConfig, Network, NetworkError, NetworkKind, Policy, remove_leftovers};
use nex_process::{ChildSpec, Deadline, Signal};
use support::{config, host_state, in_a_host, obstacle, run, soon, unique, with_kind};
use tokio::task::JoinSet;

fn plugins() -> CniConfig {
    CniConfig {
        network_name: "fcnet".into(),
        interface_name: "veth0".into(),
        bin_path: vec![PathBuf::from("/usr/lib/cni")],
        conf_dir: PathBuf::from("/nonexistent"),
        nameservers: vec![Ipv4Addr::new(9, 9, 9, 9)],
    }
}

/// Both kinds, if this machine supports them.
fn kinds(test: &str) -> Vec<NetworkKind> {
    if let Some(why) = obstacle() {
        nex_testkit::announce(&test, &why);
        return Vec::new();
    }
    let cni = NetworkKind::Cni(plugins());
    match nex_network::check(&cni).first() {
        None => vec![NetworkKind::Builtin, cni],
        Some(lack) => {
            nex_testkit::announce(&format!("{test} with plug-ins"), &lack.what);
            vec![NetworkKind::Builtin]
        }
    }
}

async fn open(owner: &str, dir: &Path, kind: &NetworkKind) -> Result<Arc<Network>, NetworkError> {
    let config = with_kind(config(owner, dir, Policy::default()), kind.clone());
    Network::open(config, soon()).await.map(Arc::new)
}

async fn attach_many(network: &Arc<Network>, ids: impl Iterator<Item = String>) -> Vec<Attachment> {
    let mut running = JoinSet::new();
    for id in ids {
        let network = Arc::clone(network);
        running.spawn(async move { network.attach(&id, None, soon()).await.unwrap() });
    }
    running.join_all().await
}

async fn detach_all(network: &Arc<Network>, attached: Vec<Attachment>) {
    let mut running = JoinSet::new();
    for attachment in attached {
        let network = Arc::clone(network);
        running.spawn(async move {
            assert!(network.detach(&attachment, soon()).await, "{attachment:?}");
            assert!(network.detach(&attachment, soon()).await, "detaching again is fine");
        });
    }
    running.join_all().await;
}

#[test]
fn guests_that_attach_at_once_get_addresses_of_their_own_and_leave_nothing() {
    for kind in kinds("guests_that_attach_at_once_get_addresses_of_their_own_and_leave_nothing") {
        let count = if kind == NetworkKind::Builtin { 64 } else { 8 };
        in_a_host(move || async move {
            let dir = tempfile::tempdir().unwrap();
            let network = open(&unique(), dir.path(), &kind).await.unwrap();
            let before = host_state().await;
            let attached = attach_many(&network, (0..count).map(|number| format!("vm-{number}"))).await;
            let addresses: BTreeSet<_> = attached.iter().map(|attachment| attachment.address).collect();
            let macs: BTreeSet<_> = attached.iter().map(|attachment| attachment.mac).collect();
            assert_eq!((addresses.len(), macs.len()), (count, count));
            assert!(addresses.iter().all(|address| network.subnet().contains(address) && *address != network.gateway()));
            if kind == NetworkKind::Builtin {
                let taps = run("ip", &["-d", "link"]).await;
                assert_eq!(taps.matches(" user root ").count(), count, "only root may open them by name: {taps}");
            }
            let taken = network.attach("vm-1", None, soon()).await;
            assert!(matches!(taken, Err(NetworkError::Exists(_))), "{taken:?}");
            detach_all(&network, attached).await;
            assert_eq!(host_state().await, before);
            assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
            network.close(soon()).await;
        });
    }
}

/// Records and leases, wherever they are below; the plug-ins' own bookkeeping left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if name != "lock" && !name.starts_with("last_reserved_ip") {
            found.push(path);
        }
    }
    found
}

#[test]
fn devices_of_others_stay() {
    for kind in kinds("devices_of_others_stay") {
        in_a_host(move || async move {
            run("nft", &["add", "table", "inet", "nex_other"]).await;
            run("ip", &["link", "add", "veth0a", "type", "veth", "peer", "name", "veth0b"]).await;
            run("ip", &["tuntap", "add", "nx127-1", "mode", "tap"]).await;
            run("ip", &["tuntap", "add", "nex128", "mode", "tap"]).await;
            run("ip", &["link", "set", "nex128", "alias", "nex:other"]).await;
            run("ip", &["link", "add", "lan", "type", "bridge"]).await;
            run("ip", &["address", "add", "192.168.127.7/25", "dev", "lan"]).await;
            let before = host_state().await;
            let dir = tempfile::tempdir().unwrap();
            let network = open(&unique(), dir.path(), &kind).await.unwrap();
            assert_eq!(network.subnet().to_string(), "192.168.129.0/24", "127 is a LAN, 128 another node's");
            let attached = attach_many(&network, (0..3).map(|number| number.to_string())).await;
            network.sweep(&BTreeSet::new(), soon()).await;
            assert!(run("ip", &["-o", "link"]).await.contains("nx127-1"));
            detach_all(&network, attached).await;
            network.close(soon()).await;
            assert!(matches!(network.attach("late", None, soon()).await, Err(NetworkError::Closed)));
            assert_eq!(host_state().await, before);
        });
    }
}

#[test]
fn a_subnet_that_is_taken_is_refused_by_name() {
    if kinds("a_subnet_that_is_taken_is_refused_by_name").is_empty() {
        return;
    }
    in_a_host(|| async {
        run("ip", &["link", "add", "lan", "type", "bridge"]).await;
        run("ip", &["address", "add", "10.5.0.1/16", "dev", "lan"]).await;
        let before = host_state().await;
        let dir = tempfile::tempdir().unwrap();
        let ask = |owner: &str, subnet: &str| {
            let mut config =
                config(owner, dir.path(), Policy { allow: vec![Allow::Internet], host_ports: vec![], ..Policy::default() });
            config.subnet = Some(subnet.parse().unwrap());
            Network::open(config, soon())
        };
        let error = ask("mine", "10.5.1.0/24").await.unwrap_err().to_string();
        assert!(error.contains("lan (10.5.0.1/16)"), "{error}");
        let network = ask("mine", "10.6.0.0/24").await.unwrap();
        assert_eq!(network.gateway(), Ipv4Addr::new(10, 6, 0, 1));
        assert!(network.warnings()[0].contains("sysctl -w net.ipv4.ip_forward=1"), "{:?}", network.warnings());
        for (owner, subnet) in [("other", "10.6.0.0/24"), ("other", "10.6.0.0/25"), ("other", "10.6.0.128/25")] {
            let taken = ask(owner, subnet).await;
            let right = subnet == "10.6.0.128/25" || matches!(taken, Err(NetworkError::Taken { .. }));
            assert!(right, "{subnet}: {taken:?}");
            if let Ok(other) = taken {
                other.close(soon()).await;
            }
        }
        network.close(soon()).await;
        assert_eq!(host_state().await, before);
    });
}

/// Input of the killed process: owner and state directory, separated by a comma.
const CHILD: &str = "NEX_NETWORK_TEST_CHILD";

/// Not a test: the process that [`after_a_kill_a_sweep_finds_everything`] starts and kills. It attaches and detaches without end.
#[test]
#[ignore = "the process that another test starts and kills"]
fn process_to_kill() {
    let input = std::env::var_os(CHILD).unwrap().into_string().unwrap();
    let (owner, dir) = input.split_once(',').unwrap();
    let kind = if dir.ends_with("cni") { NetworkKind::Cni(plugins()) } else { NetworkKind::Builtin };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let network = open(owner, Path::new(dir), &kind).await.unwrap();
        for id in ["kept", "lost"] {
            network.attach(id, None, soon()).await.unwrap();
        }
        for round in 0.. {
            let attached = attach_many(&network, (0..4).map(|number| format!("r{round}-{number}"))).await;
            std::fs::write(Path::new(dir).join("ready"), "").unwrap();
            detach_all(&network, attached).await;
        }
    });
}

#[test]
fn after_a_kill_a_sweep_finds_everything() {
    for kind in kinds("after_a_kill_a_sweep_finds_everything") {
        in_a_host(move || async move {
            let before = host_state().await;
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join(if kind == NetworkKind::Builtin { "builtin" } else { "cni" });
            let owner = unique();
            for _round in 0..3 {
                run_and_kill(&owner, &dir).await;
                let network = open(&owner, &dir, &kind).await.unwrap();
                let removed = network.sweep(&BTreeSet::from(["kept".to_owned()]), soon()).await;
                assert!(removed >= 1, "{removed}");
                assert_eq!(guests(&owner).await, ["kept"]);
                // Detached from its process, so the next sweep removes it.
                assert!(network.attach("new", None, soon()).await.is_ok());
                assert_eq!(network.sweep(&BTreeSet::new(), soon()).await, 1);
                assert_eq!(guests(&owner).await, ["new"]);
                drop(network);
                assert!(remove_leftovers(&owner, &dir, soon()).await >= 3, "a guest, the network, the table");
                assert_eq!(host_state().await, before);
                assert_eq!(files(&dir), [dir.join("ready")]);
            }
            assert_eq!(remove_leftovers(&owner, &dir, soon()).await, 0);
        });
    }
}

async fn run_and_kill(owner: &str, dir: &Path) {
    let ready = dir.join("ready");
    let _old = std::fs::remove_file(&ready);
    let this = std::env::current_exe().unwrap();
    let child = ChildSpec::new(this)
        .args(["--ignored", "--exact", "process_to_kill"])
        .env(CHILD, format!("{owner},{}", dir.display()))
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(!soon().is_past() && child.exit().is_none(), "{:?}", child.exit());
        tokio::task::yield_now().await;
    }
    child.signal(Signal::SIGKILL);
    child.exited().await;
}

/// The ids in the aliases of an owner's devices.
async fn guests(owner: &str) -> Vec<String> {
    let links = run("ip", &["-o", "link"]).await;
    let alias = format!("alias nex:{owner}:");
    let ids = links.lines().filter_map(|line| line.split_once(&alias)).map(|(_, rest)| rest.trim().to_owned());
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_chain_that_fails_shows_the_plugins_words_and_is_undone() {
    if kinds("a_chain_that_fails_shows_the_plugins_words_and_is_undone").len() < 2 {
        return;
    }
    in_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let list = r#"{"name": "fcnet", "cniVersion": "1.0.0", "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.9.8.0/24"}}, {"type": "tuning", "sysctl": {"net.no.such": "1"}}]}"#;
        std::fs::write(dir.path().join("fcnet.conflist"), list).unwrap();
        let kind = NetworkKind::Cni(CniConfig { conf_dir: dir.path().to_owned(), ..plugins() });
        let state = dir.path().join("state");
        let network = open(&unique(), &state, &kind).await.unwrap();
        assert_eq!(network.subnet().to_string(), "10.9.8.0/24");
        let before = host_state().await;
        let error = network.attach("vm", None, soon()).await.unwrap_err().to_string();
        assert!(error.contains("tuning") && error.contains("net/no/such"), "{error}");
        assert_eq!(host_state().await, before);
        assert_eq!(files(&state), Vec::<PathBuf>::new());
        network.close(soon()).await;
    });
}

#[test]
fn nothing_is_left_of_a_cancelled_attach() {
    for kind in kinds("nothing_is_left_of_a_cancelled_attach") {
        in_a_host(move || async move {
            let dir = tempfile::tempdir().unwrap();
            let network = open(&unique(), dir.path(), &kind).await.unwrap();
            let before = host_state().await;
            for micros in [0, 1, 200, 1_000, 5_000, 20_000, 60_000] {
                let by = Deadline::after(Duration::from_micros(micros));
                // Given up from outside, and at its own deadline: both may also have come in time.
                if let Ok(Ok(attachment)) = by.bound(network.attach("dropped", None, soon())).await {
                    assert!(network.detach(&attachment, soon()).await);
                }
                if let Ok(attachment) = network.attach("late", None, by).await {
                    assert!(network.detach(&attachment, soon()).await);
                }
                for id in ["dropped", "late"] {
                    // The id is free again when nothing is left of the one before.
                    let attachment = loop {
                        match network.attach(id, None, soon()).await {
                            Err(NetworkError::Exists(_)) => tokio::task::yield_now().await,
                            attached => break attached.unwrap(),
                        }
                    };
                    assert!(network.detach(&attachment, soon()).await);
                }
                assert_eq!(host_state().await, before, "{micros}");
                assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
            }
            network.close(soon()).await;
        });
    }
}

//! Real agents in real jails on this host, as the current user; as root, once more as an ordinary user.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nex_process::cgroup::{Cgroups, Controller};
use nex_process::confinement::{Mode, Part};
use nex_process::{ChildSpec, Confinement, Deadline, Output};
use nex_sandbox::process::{OpenError, ProcessConfig, ProcessNetwork, ProcessProvider};
use nex_sandbox::{AdoptError, AttachError, CreateError, Sandbox, SandboxProvider, remove_leftover};
use nix::time::{ClockId, clock_gettime};

mod fixture;
mod image;

use fixture::{
    Fixture, config, fixture, fixture_near, fixture_with, has_own_root, holds_together, jail_agent, processes_of, reported, soon,
    spec, until, workload_copy,
};

/// The host's network, for tests of something else.
fn shared() -> ProcessNetwork {
    ProcessNetwork::Shared { reason: "a test".to_owned() }
}

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_agent_gets_its_identity_and_reports_what_confines_it() {
    let fixture = fixture().await;
    let sandbox = fixture.start("a1", "exit 7").await;
    let report: Confinement = serde_json::from_str(&reported(sandbox.as_ref(), "report").await).unwrap();
    assert_eq!(report.missing(), fixture.provider.confinement().missing());
    println!("confinement here: {report}");
    assert_eq!(sandbox.exited().await.exit.code, Some(7), "the agent's status comes through both waiting processes");
    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_workload_finds_no_way_out() {
    let fixture = fixture().await;
    if !has_own_root("a_workload_finds_no_way_out", &fixture) {
        return;
    }
    look_for_a_way_out(&fixture, "--escape").await;
}

#[tokio::test]
async fn a_workload_finds_no_way_out_without_a_root_of_its_own_either() {
    let fixture = fixture().await;
    if fixture.provider.confinement().mode != Mode::Plain {
        nex_testkit::skip!("a_workload_finds_no_way_out_without_a_root_of_its_own_either", "this host gives better");
    }
    let abi = fixture.provider.confinement().landlock.abi;
    if abi < 6 {
        let why = format!("Landlock {abi} does not scope signals");
        nex_testkit::skip!("a_workload_finds_no_way_out_without_a_root_of_its_own_either", why);
    }
    look_for_a_way_out(&fixture, "--reach").await;
}

async fn look_for_a_way_out(fixture: &Fixture, how: &str) {
    let secret = fixture.state.path().join("node.key");
    fs::write(&secret, "secret").unwrap();
    let name = format!("nex-test-{}", fixture.node);
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let identity = format!("run {how} {} {} {name}", secret.display(), std::process::id());
    let sandbox = fixture.start("e1", &identity).await;
    assert_eq!(reported(sandbox.as_ref(), "said").await, "", "every line is an escape");
    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn killing_everything_from_inside_hits_nothing_outside() {
    let fixture = fixture().await;
    if !has_own_root("killing_everything_from_inside_hits_nothing_outside", &fixture) {
        return;
    }
    // In a user namespace this one has the same uid outside.
    let bystander = ChildSpec::new("/bin/sleep").args(["60"]).spawn().unwrap();
    let neighbour = fixture.start("k1", "stay").await;
    reported(neighbour.as_ref(), "entered").await;
    let sandbox = fixture.start("k2", "run --kill-all").await;
    assert_eq!(sandbox.exited().await.exit.code, Some(137), "it killed its own agent and nothing else");
    assert!(bystander.id().is_alive());
    assert!(neighbour.record().leader.is_alive());
    sandbox.stop(GRACE).await;
    neighbour.stop(GRACE).await;
}

#[tokio::test]
async fn a_setuid_program_gains_nothing() {
    let fixture = fixture().await;
    if !nix::unistd::geteuid().is_root() || !has_own_root("a_setuid_program_gains_nothing", &fixture) {
        nex_testkit::skip!("a_setuid_program_gains_nothing", "only root can make one");
    }
    let sandbox = fixture.provider.create(spec("s1", "run --whoami"), soon()).await.unwrap();
    let artifact = sandbox.record().dir.join("artifact/workload");
    fs::copy(jail_agent(), artifact.with_file_name("draft")).unwrap();
    fs::set_permissions(artifact.with_file_name("draft"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::rename(artifact.with_file_name("draft"), artifact).unwrap();
    let uid = sandbox.record().uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw());
    assert_eq!(reported(sandbox.as_ref(), "said").await.trim(), uid.to_string());
    sandbox.stop(GRACE).await;
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_its_neighbour_lives() {
    let fixture = fixture().await;
    if !holds_together("a_fork_bomb_is_bounded_and_its_neighbour_lives", &fixture) {
        return;
    }
    let sandbox = fixture.start("b1", "bomb").await;
    let children: u64 = reported(sandbox.as_ref(), "bombed").await.parse().unwrap();
    assert!(children < 32, "{children} processes");
    let neighbour = fixture.start("b2", "bomb").await;
    assert!(reported(neighbour.as_ref(), "bombed").await.parse::<u64>().unwrap() > 8, "the first one's bomb is not counted here");
    let processes = processes_of(sandbox.as_ref());
    sandbox.stop(Duration::from_millis(10)).await;
    neighbour.stop(Duration::from_millis(10)).await;
    until("the bomb is gone", || processes.iter().all(|id| !id.is_alive())).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn an_agent_out_of_memory_dies_alone_and_its_report_says_so() {
    let fixture = fixture().await;
    let sandbox = fixture.start("m1", "eat").await;
    let report = soon().bound(sandbox.exited()).await.unwrap();
    assert!(!report.exit.is_success(), "{report}");
    let limited = Cgroups::detect().controllers().contains(&Controller::Memory);
    assert_eq!(report.out_of_memory, limited, "{report}");
    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn scratch_space_is_bounded() {
    let fixture = fixture().await;
    if !has_own_root("scratch_space_is_bounded", &fixture) {
        return;
    }
    let sandbox = fixture.start("f1", "fill").await;
    let said = reported(sandbox.as_ref(), "filled").await;
    assert_eq!(said, "2097152 2097152 2097152");
    sandbox.stop(GRACE).await;
}

#[tokio::test]
async fn a_jailed_process_finds_its_servers_at_its_own_loopback_and_nothing_else_of_the_host() {
    let [server, other] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let fixture = fixture_near(vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, port(&server))], |_| {}).await;
    let Some(network) = fixture.provider.network() else {
        let test = "a_jailed_process_finds_its_servers_at_its_own_loopback_and_nothing_else_of_the_host";
        nex_testkit::skip!(test, "this user may not make networks");
    };
    let bus = std::net::TcpListener::bind((network.gateway(), 0)).unwrap();
    network.permit_gateway_port(port(&bus)).await.unwrap();
    let to = |host: &str, listener| format!("{host}:{}", port(listener));
    let gateway = network.gateway().to_string();
    let addresses = [to("127.0.0.1", &server), to(&gateway, &bus), to("127.0.0.1", &other), to(&gateway, &other)];
    let sandbox = fixture.start("n1", &format!("connect {}", addresses.join(" "))).await;
    assert_eq!(reported(sandbox.as_ref(), "connected").await, "yes yes no no");
    sandbox.restrict_network().await.unwrap();
    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn killing_the_first_process_leaves_none() {
    let fixture = fixture().await;
    if !has_own_root("killing_the_first_process_leaves_none", &fixture) {
        return;
    }
    let sandbox = fixture.start("p1", "family").await;
    reported(sandbox.as_ref(), "ready").await;
    let processes = processes_of(sandbox.as_ref());
    assert!(processes.len() >= 11, "two that wait, the agent, six children, two orphans: {processes:?}");
    sandbox.record().leader.kill_and_wait(soon()).await.unwrap();
    until("the family is gone", || processes.iter().all(|id| !id.is_alive())).await;
    assert_eq!(sandbox.exited().await.exit.signal, Some(9));
    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_polite_stop_reaches_the_agent() {
    let fixture = fixture().await;
    let sandbox = fixture.start("t1", "stay").await;
    reported(sandbox.as_ref(), "entered").await;
    let report = sandbox.stop(GRACE).await;
    // Both waiting processes forwarded the signal; the agent has no handler, so it died of it.
    let through = if sandbox.record().own_root { (Some(143), None) } else { (None, Some(15)) };
    assert_eq!((report.exit.code, report.exit.signal), through);
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_dropped_sandbox_is_killed_and_removed() {
    let fixture = fixture().await;
    let sandbox = fixture.start("d1", "stay").await;
    reported(sandbox.as_ref(), "entered").await;
    let processes = processes_of(sandbox.as_ref());
    drop(sandbox);
    until("its processes are gone", || processes.iter().all(|id| !id.is_alive())).await;
    fixture.leaves_no_trace().await;
}

#[test]
fn a_sandbox_dropped_with_its_runtime_is_removed_at_once() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let fixture = first.block_on(fixture());
    let sandbox = first.block_on(async {
        let sandbox = fixture.start("o1", "stay").await;
        // This one belongs to a task that ends with the runtime.
        let other = fixture.start("o2", "stay").await;
        reported(other.as_ref(), "entered").await;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { other.exited().await });
        tasks.detach_all();
        sandbox
    });
    let leader = sandbox.record().leader;
    drop(first);
    drop(sandbox);
    second.block_on(fixture.leaves_no_trace());
    assert!(!leader.is_alive());
}

#[tokio::test]
async fn a_killed_node_s_sandbox_is_adopted_or_removed_by_its_record() {
    let fixture = fixture().await;
    if !holds_together("a_killed_node_s_sandbox_is_adopted_or_removed_by_its_record", &fixture) {
        return;
    }
    let (one, two) = (fixture.start("c1", "stay").await, fixture.start("c2", "family").await);
    reported(one.as_ref(), "entered").await;
    reported(two.as_ref(), "ready").await;
    let processes = processes_of(two.as_ref());
    // Like kill -9: no notification, no removal.
    let (one, two) = (one.release(), two.release());
    let dead = fixture.start("c4", "stay").await.release();
    dead.leader.kill_and_wait(soon()).await.unwrap();
    let next = fixture.next_process().await;
    let adopted = next.adopt(&one.id, soon()).await.unwrap();
    assert_eq!(adopted.record(), one);
    assert!(adopted.restrict_network().await.is_ok());
    assert!(adopted.attach_file(&workload_copy(fixture.state.path()), "later").await.is_ok());
    let fresh = next.create(spec("c3", "stay"), soon()).await.unwrap();
    assert!(one.uid.is_none() || ![one.uid, two.uid].contains(&fresh.record().uid), "a uid in use is not given again");

    assert!(remove_leftover(&two, soon()).await);
    assert!(remove_leftover(&two, soon()).await, "twice is fine");
    until("its processes are gone", || processes.iter().all(|id| !id.is_alive())).await;
    assert!(!two.dir.exists());
    assert!(two.cgroup.is_none_or(|group| group.paths().iter().all(|path| !path.exists())));

    let why = next.adopt(&dead.id, soon()).await.unwrap_err();
    assert!(matches!(why, AdoptError::Ended(leader) if leader == dead.leader), "{why}");
    assert_eq!(next.sweep(&BTreeSet::from([one.id.clone(), fresh.id().clone()]), soon()).await, 1, "the dead one");
    assert!(adopted.record().leader.is_alive());
    adopted.stop(GRACE).await;
    assert!(!one.leader.is_alive());
    let why = next.adopt(&one.id, soon()).await.unwrap_err();
    assert!(matches!(why, AdoptError::Unknown), "{why}");
    fresh.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_sweep_removes_all_sandboxes_but_those_to_keep() {
    let fixture = fixture().await;
    let (kept, other) = (fixture.start("w1", "stay").await, fixture.start("w2", "stay").await);
    // Released earlier, it would die of what it says when nobody listens.
    reported(kept.as_ref(), "entered").await;
    let (kept, other) = (kept.release(), other.release());
    fs::create_dir(fixture.state.path().join("agents/half-made")).unwrap();
    let removed = fixture.provider.sweep(&BTreeSet::from([kept.id.clone()]), soon()).await;
    assert_eq!(removed, 2);
    assert!(kept.leader.is_alive() && kept.dir.exists());
    assert!(!other.leader.is_alive() && !other.dir.exists());
    assert_eq!(fixture.provider.sweep(&BTreeSet::new(), soon()).await, 1);
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing() {
    let fixture = fixture_with(|config| config.agent_binary = jail_agent()).await;
    let taken = fixture.start("x1", "stay").await;
    assert!(matches!(fixture.provider.create(spec("x1", "stay"), soon()).await, Err(CreateError::Taken(_))));
    assert!(matches!(fixture.provider.create(spec("x2", "a\nb"), soon()).await, Err(CreateError::Identity(_))));
    assert!(taken.record().leader.is_alive(), "the one that has the name is left alone");
    let late = fixture.provider.create(spec("x3", "stay"), Deadline::after(Duration::ZERO)).await;
    assert!(matches!(late, Err(CreateError::Late(_))));
    let never = ProcessConfig { agent_binary: "/bin/true".into(), ..config(fixture.state.path(), &fixture.node) };
    assert!(matches!(ProcessProvider::open(never, shared(), soon()).await, Err(OpenError::NoReport { .. })));
    taken.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn an_agent_that_fails_is_quoted() {
    let fixture = fixture().await;
    let sandbox = fixture.start("q1", "fail why").await;
    let report = sandbox.exited().await;
    assert_eq!(report.to_string(), "exit code 1: why");
    sandbox.stop(GRACE).await;
}

#[tokio::test]
async fn files_come_in_by_link_or_copy_and_never_in_place_of_another() {
    let fixture = fixture().await;
    let sandbox = fixture.start("i1", "stay").await;
    let (cached, other) = (fixture.state.path().join("cached"), fixture.state.path().join("other"));
    fs::write(&cached, "1").unwrap();
    fs::write(&other, "2").unwrap();
    let seen = sandbox.attach_file(&cached, "module.wasm").await.unwrap();
    assert_eq!(seen, sandbox.attach_file(&cached, "module.wasm").await.unwrap());
    assert_eq!(seen == Path::new("/artifact/module.wasm"), sandbox.record().own_root);
    assert!(matches!(sandbox.attach_file(&other, "module.wasm").await, Err(AttachError::Taken(_))));
    assert!(matches!(sandbox.attach_file(&cached, "../out/x").await, Err(AttachError::Name(_))));
    assert!(matches!(sandbox.attach_file(fixture.state.path(), "dir").await, Err(AttachError::Failed { .. })));
    let elsewhere = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    fs::write(elsewhere.path(), "3").unwrap();
    sandbox.attach_file(elsewhere.path(), "copied").await.unwrap();
    assert_eq!(fs::read(sandbox.record().dir.join("artifact/copied")).unwrap(), b"3");

    sandbox.stop(GRACE).await;
    fixture.leaves_no_trace().await;
}

#[tokio::test]
async fn a_host_that_lacks_what_is_required_is_refused_by_name() {
    let fixture = fixture().await;
    let Some((part, _)) = fixture.provider.confinement().missing().first().map(|(part, reason)| (*part, *reason)) else {
        nex_testkit::skip!("a_host_that_lacks_what_is_required_is_refused_by_name", "this host lacks nothing");
    };
    let state = tempfile::tempdir().unwrap();
    let refused =
        ProcessProvider::open(ProcessConfig { require: vec![part], ..config(state.path(), "lack") }, shared(), soon()).await;
    assert!(matches!(refused, Err(OpenError::Lacks { part: lacking, .. }) if lacking == part));
    let all = [Part::Namespaces, Part::Root, Part::User, Part::Seccomp, Part::Landlock];
    let held: Vec<Part> = all.into_iter().filter(|part| fixture.provider.confinement().lacks(&[*part]).is_none()).collect();
    let config = ProcessConfig { require: held, ..config(state.path(), "lack") };
    ProcessProvider::open(config, shared(), soon()).await.unwrap();
}

#[tokio::test]
#[ignore = "measures and prints, asserts nothing: cargo test -p nex-sandbox --test jail -- --ignored --nocapture"]
async fn how_long_setting_up_takes() {
    let fixture = fixture().await;
    let near = ProcessProvider::open(config(fixture.state.path(), &fixture.node), shared(), soon()).await.unwrap();
    let (mut own, mut host, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..20 {
        let start = Instant::now();
        let child = ChildSpec::new(jail_agent()).args(["--whoami"]).stdout(Output::Null).spawn().unwrap();
        child.exited().await;
        plain.push(start.elapsed());
        for (provider, times, id) in [(&fixture.provider, &mut own, format!("r{round}")), (&near, &mut host, format!("s{round}"))]
        {
            let before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
            let sandbox = provider.create(spec(&id, "stay"), soon()).await.unwrap();
            let entered = reported(sandbox.as_ref(), "entered").await;
            let (seconds, nanoseconds) = entered.split_once(' ').unwrap();
            times.push(Duration::new(seconds.parse().unwrap(), nanoseconds.parse().unwrap()) - before);
            sandbox.stop(Duration::from_millis(1)).await;
        }
    }
    let [own, host, plain] = [own, host, plain].map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    println!(
        "create to entered {own:?}, in the host's network {host:?}; a plain process, start to end {plain:?} (medians of 20)"
    );
}

/// Runs all other tests again as another user.
async fn all_again(test: &str, as_whom: &[&str]) {
    if !nix::unistd::geteuid().is_root() || std::env::var_os("NEX_JAIL_AGENT").is_some() {
        nex_testkit::skip!(test, "only root can become another user");
    }
    // Other users may have no access to the build directory.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (tests, agent) = (place.path().join("tests"), place.path().join("jail-agent"));
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    fs::copy(jail_agent(), &agent).unwrap();
    let (seen, sink) = std::sync::mpsc::sync_channel(10_000);
    let output = Output::Lines(std::sync::Arc::new(move |line: &str| drop(seen.try_send(line.to_owned()))));
    let child = ChildSpec::new("/usr/bin/env")
        .args(as_whom.iter().copied())
        .args([tests.to_str().unwrap(), "--skip", "all_again", "--test-threads", "2", "--nocapture"])
        .env("NEX_JAIL_AGENT", &agent)
        .env("TMPDIR", place.path())
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdout(output.clone())
        .stderr(output)
        .spawn()
        .unwrap();
    let exit = Deadline::after(Duration::from_secs(120)).bound(child.exited()).await.unwrap();
    println!("{}", sink.try_iter().collect::<Vec<_>>().join("\n"));
    if exit.code == Some(127) {
        nex_testkit::skip!(test, "no setpriv or unshare on this host");
    }
    assert!(exit.is_success(), "{as_whom:?}: {exit}");
}

const ORDINARY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[tokio::test]
async fn all_again_as_an_ordinary_user() {
    all_again("all_again_as_an_ordinary_user", &ORDINARY).await;
}

#[tokio::test]
async fn all_again_without_any_namespace() {
    let closed = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all \"$@\"";
    let as_whom = [&ORDINARY[..], &["unshare", "-r", "sh", "-c", closed, "sh"]].concat();
    all_again("all_again_without_any_namespace", &as_whom).await;
}

#[tokio::test]
async fn all_again_as_root_of_a_container() {
    // Many uids need a map that is written from outside; the shell inside waits for it, then runs as what became root.
    let inside = "read go < $TMPDIR/go; exec sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --bounding-set -sys_admin --inh-caps -all \"$@\"' sh \"$@\"";
    let outside = "mkfifo $TMPDIR/go; inside=$1; shift; unshare -U sh -c \"$inside\" sh \"$@\" & \
                   until echo 0 0 1000000 > /proc/$!/uid_map && echo 0 0 1000000 > /proc/$!/gid_map; do :; done 2> /dev/null; \
                   echo > $TMPDIR/go; wait $!";
    let as_whom = ["sh", "-c", outside, "sh", inside];
    all_again("all_again_as_root_of_a_container", &as_whom).await;
}

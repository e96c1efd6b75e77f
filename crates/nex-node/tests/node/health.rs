//! Health checks: they gate the answer to a deploy, have sick services started again, and harm nobody else whatever they do.

use nex_protocol::deploy::WorkloadType;
use nex_protocol::envelope::ErrorCode;
use nex_testkit::{dist_binary, eventually, machines, skip};
use serde_json::{Value, json};

use crate::adoption::sleeping;
use crate::crash::is_back;
use crate::world::{World, processes, timeout};

/// A time in ms, longer where machines are emulated.
fn ms(time: u64) -> u64 {
    if machines::in_machines() { time * 6 } else { time }
}

fn policy(probe: &str, interval: u64, threshold: u32) -> String {
    let health = json!({"probe": probe, "interval_ms": ms(interval), "timeout_ms": ms(1_000), "threshold": threshold});
    json!({"restart": "on-failure", "health": health}).to_string()
}

/// Seconds that no other test sleeps for.
fn unique(number: u32) -> u32 {
    5_000_000 + std::process::id() * 10 + number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_is_answered_when_the_check_passes_and_a_sick_service_is_started_again_with_the_reason() {
    let mut world = World::start(json!({})).await;
    // Well after a moment; sick for ever on the first life's second moment, well in the next life.
    let script = "sleep 0.3; touch /tmp/well; echo well; sleep 1; rm /tmp/well; echo sick; exec sleep 1000";
    let probe = "cmd:/bin/sh -c 'test -f /tmp/well || { echo not well >&2; exit 4; }'";
    let service = world.kept("service", script, &policy(probe, 200, 100)).await;
    let started = world.deploy(&service).await;
    assert!(world.has_logged("well") || eventually(timeout(), async || world.has_logged("well")).await);
    assert_eq!(world.workload(&started.id).await.unwrap().state, "running");
    world.stop_workload(&started).await;
    let service = world.kept("service", script, &policy(probe, 200, 10)).await;
    let started = world.deploy(&service).await;
    world.restarted(&started.id, 1).await;
    let told = &world.events_of("workload_unhealthy", &started.id)[0];
    let reason = told.data["reason"].as_str().unwrap();
    assert!(reason.contains("failed 10 times") && reason.contains("exit status: 4") && reason.contains("not well"), "{reason}");
    is_back(&world, &started).await;
    world.stop_workload(&started).await;
    world.until("its end is told", |it| it.events_of("workload_undeployed", &started.id).len() == 1).await;
    assert_eq!(world.events_of("workload_deployed", &started.id).len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_passes_is_a_failed_deploy_with_the_reason_and_its_last_lines() {
    let mut world = World::start(json!({})).await;
    let sick = world.kept("sick", "echo 'the database is away' >&2\nexec sleep 1000", &policy("cmd:/bin/false", 200, 4)).await;
    let failure = world.refused(&sick).await;
    let text = &failure.message;
    assert_eq!(failure.code, ErrorCode::Failed);
    let parts = ["it did not pass its health check within", "'/bin/false' ended with exit status: 1", "the database is away"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    let short = world.kept("short", "echo bye >&2\nexit 7", &policy("cmd:/bin/false", 1_000, 5)).await;
    let text = world.refused(&short).await.message;
    assert!(text.contains("exit code 7 before it passed its health check") && text.contains("bye"), "{text}");
    assert_eq!((world.node().registry().count(), world.events("workload_deployed").len()), (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_pages_and_subjects_are_asked_where_the_service_lives() {
    if machines::in_machines() {
        skip!("ports_pages_and_subjects_are_asked_where_the_service_lives", "the root image of tests has no perl");
    }
    let mut world = World::start(json!({})).await;
    let port = 20_000 + std::process::id() % 10_000;
    let server = format!(
        "exec perl -e 'use IO::Socket::INET; $|=1; $s=IO::Socket::INET->new(LocalAddr=>\"127.0.0.1\",LocalPort=>{port},Listen=>9,ReuseAddr=>1) or die; \
         while($c=$s->accept){{$l=<$c>; $n++; $t=$n<3?\"503 Busy\":\"200 OK\"; print $c \"HTTP/1.1 $t\\r\\nContent-Length: 0\\r\\n\\r\\n\"; close $c; print \"$t $l\"}}'"
    );
    let page = world.kept("page", &server, &policy(&format!("http:{port}/ok?x=1"), 200, 50)).await;
    let page = world.deploy(&page).await;
    world.until("it was asked", |it| it.has_logged("200 OK GET /ok?x=1 HTTP/1.1")).await;
    assert!(world.has_logged("503 Busy"), "it is well only when it says so");
    world.stop_workload(&page).await;
    let port_only = world.kept("port", &server, &policy(&format!("tcp:{port}"), 200, 50)).await;
    let port_only = world.deploy(&port_only).await;
    world.stop_workload(&port_only).await;
    let program = std::fs::read(dist_binary("echo-service")).unwrap();
    let mut echo = world.prepare("echo", WorkloadType::Native, &program).await;
    echo.environment.insert("nats_url".into(), world.nats_for_workloads());
    echo.policy = serde_json::from_str(&policy("nats:svc.echo", 200, 50)).unwrap();
    world.deploy(&echo).await;
    assert_eq!(world.call("svc.echo", "at once").await, "at once", "the answer came when it listened");
    let nobody = world.kept("nobody", "exec sleep 1000", &policy("nats:svc.nobody", 100, 30)).await;
    let text = world.refused(&nobody).await.message;
    assert!(text.contains("nobody answers on svc.nobody"), "{text}");
    world.stop().await;
}

/// A check that hangs, forks without end, or floods: it fails, nothing of it is left, and its neighbour notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_check_harms_nobody_and_leaves_nothing() {
    let mut world = World::start(json!({"workload_limits": {"max_processes": 60}})).await;
    let neighbour = world.kept("neighbour", "while :; do echo beat; sleep 0.1; done", &policy("cmd:/bin/true", 100, 3)).await;
    let neighbour = world.deploy(&neighbour).await;
    let hangs = format!("cmd:sleep {}", unique(1));
    let forks = format!("cmd:/bin/sh -c 'while :; do setsid sleep {} & done'", unique(2));
    for (name, probe) in [("hangs", hangs.as_str()), ("forks", &forks), ("floods", "cmd:/bin/sh -c 'yes flood >&2'")] {
        let health = json!({"probe": probe, "interval_ms": 100, "timeout_ms": 300, "threshold": 20});
        let policy = json!({"health": health}).to_string();
        let hostile = world.kept(name, "exec sleep 1000", &policy).await;
        let text = world.refused(&hostile).await.message;
        assert!(text.contains("did not pass its health check"), "{name}: {text}");
    }
    for number in [1, 2] {
        let line = format!("sleep\0{}\0", unique(number));
        let gone = eventually(timeout(), async || !processes().iter().any(|(_, it)| it.ends_with(&line)));
        assert!(gone.await, "processes of a check are left");
    }
    let summary = world.workload(&neighbour.id).await.unwrap();
    assert_eq!((summary.state.as_str(), summary.restarts), ("running", 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_taken_over_is_checked_as_before() {
    if machines::in_machines() {
        skip!(
            "a_service_that_was_taken_over_is_checked_as_before",
            "it looks at the process of a workload, which is inside; machines that are taken over have tests of their own"
        );
    }
    let (mut world, doomed) = World::crashing().await;
    let script = format!("touch /tmp/well; trap 'rm /tmp/well' USR1; sleep {} & while :; do wait; done", unique(3));
    let service = world.kept("service", &script, &policy("cmd:test -f /tmp/well", 100, 2)).await;
    let service = world.start_on_doomed(&doomed, &service).await;
    let first = sleeping(unique(3)).await;
    doomed.crash();
    world.start_node().await;
    is_back(&world, &service).await;
    assert_eq!((sleeping(unique(3)).await, world.summary(&service).await.restarts), (first, 0));
    let parent = parent_of(first);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGUSR1).unwrap();
    world.restarted(&service.id, 1).await;
    is_back(&world, &service).await;
    let told: Vec<Value> = world.events_of("workload_unhealthy", &service.id).into_iter().map(|event| event.data).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    world.stop().await;
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

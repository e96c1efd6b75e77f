//! Native services: programs and scripts with an environment, arguments and a log.

use nex_protocol::deploy::WorkloadType;
use nex_testkit::{dist_binary, eventually, guest, skip};
use serde_json::json;

use crate::world::{World, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_service_is_reached_over_nats_and_its_last_lines_are_heard() {
    let mut world = World::start(json!({})).await;
    let program = std::fs::read(dist_binary("echo-service")).unwrap();
    let mut echo = world.prepare("echo", WorkloadType::Native, &program).await;
    echo.environment.insert("nats_url".into(), world.nats_for_workloads());
    let started = world.deploy(&echo).await;
    world.until("it listens", |it| it.has_logged("EchoService listens on svc.echo")).await;
    assert_eq!(world.call_again("svc.echo", "hello").await, "hello");
    world.stop_workload(&started).await;
    world.until("it says goodbye", |it| it.has_logged("EchoService says goodbye")).await;
    assert!(world.workload(&started.id).await.is_none());
    // Once more, and stopped with its node.
    let started = world.deploy(&echo).await;
    let again = eventually(timeout(), async || world.client.call("svc.echo", "again".into(), timeout()).await.is_ok());
    assert!(again.await, "it does not listen again");
    world.stop().await;
    let goodbyes =
        |it: &World| it.logs().iter().filter(|(_, line)| line.text.ends_with("goodbye") && line.id == started.id).count();
    world.until("it says goodbye to its node", |it| goodbyes(it) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_its_environment_and_arguments_and_its_lines_have_levels() {
    let mut world = World::start(json!({})).await;
    let script = b"#!/bin/sh
trap 'printf \"no line end\"; exit 0' INT
env | sort | tr '\\n' ' '
echo
echo 'bad news' >&2
echo \"out:$GREETING:$1:$2:$#\"
while :; do sleep 0.1; done
";
    let mut deployment = world.prepare("script", WorkloadType::Native, script).await;
    deployment.environment.insert("greeting".into(), "hello there".into());
    deployment.argv = vec!["a b".into(), "$HOME;ü".into()];
    let started = world.deploy(&deployment).await;
    world.until("it wrote", |it| it.has_logged("bad news") && it.has_logged("out:")).await;
    let node = world.target().node;
    for (text, level) in [("out:hello there:a b:$HOME;ü:2", "INFO"), ("bad news", "ERROR")] {
        let (subject, line) = world.logs().into_iter().find(|(_, line)| line.text == text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((line.level.as_str(), line.id.as_str()), (level, started.id.as_str()));
        assert_eq!(subject, format!("$NEX.logs.default.{node}.script.{}", started.id));
    }
    world.stop_workload(&started).await;
    world.until("the rest is heard", |it| it.has_logged("no line end")).await;
    let environment = world.logs().into_iter().find(|(_, line)| line.text.contains("GREETING=")).unwrap().1.text;
    let own = ["NEX_NAMESPACE=default ", "NEX_NODE_ID=N", "NEX_WORKLOAD_ID=", "NEX_WORKLOAD_NAME=script "];
    assert!(own.iter().all(|own| environment.contains(own)), "{environment}");
    let is_own = |word: &&str| own.iter().any(|own| word.starts_with(own.trim_end()));
    let environment = environment.split(' ').filter(|word| !is_own(word)).collect::<Vec<_>>().join(" ");
    for foreign in ["CARGO", "NEX_", "nex-agent", "SU", "eyJ"] {
        assert!(!environment.contains(foreign), "{environment}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_network_of_its_own_is_told_of_a_nats_server_unless_its_deployer_names_one() {
    if !nix::unistd::geteuid().is_root() {
        skip!("a_service_with_a_network_of_its_own_is_told_of_a_nats_server_unless_its_deployer_names_one", "not root");
    }
    let mut world = World::start(json!({})).await;
    let script = b"#!/bin/sh\necho \"$WHO uses $NATS_URL\"\nwhile :; do sleep 0.1; done\n";
    for (name, own) in [("told", None), ("names", Some("nats://10.9.8.7:4222"))] {
        let mut deployment = world.prepare(name, WorkloadType::Native, script).await;
        deployment.environment.insert("who".into(), name.into());
        deployment.environment.extend(own.map(|url| ("nats_url".to_owned(), url.to_owned())));
        world.deploy(&deployment).await;
        let expected = format!("{name} uses {}", own.map_or_else(|| world.nats_for_workloads(), str::to_owned));
        world.until("it says where NATS is", |it| it.has_logged(&format!("{name} uses"))).await;
        assert!(world.has_logged(&expected), "{expected}: {:?}", world.logs());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_program_is_refused_with_what_it_is() {
    let mut world = World::start(json!({})).await;
    let module = guest::assemble(guest::ECHO_WAT);
    for (name, bytes, text) in [
        ("text", &b"hello"[..], "expected an ELF program or a #! script, found bytes [68, 65, 6c, 6c]"),
        ("wasm", &module, "found a WebAssembly module; deploy it with type wasm"),
        ("windows", b"MZ\x90\0", "found a Windows program"),
        ("python", b"#!/no/such/python\n", "\"/no/such/python\" is not in this sandbox"),
        ("short", b"\x7fELF\x02\x01", "ELF file ends within its header"),
    ] {
        let failure = world.refused(&world.prepare(name, WorkloadType::Native, bytes).await).await;
        let prefix = "Failed to deploy workload: workload rejected by agent: failed to validate workload: ";
        assert!(failure.message.starts_with(prefix) && failure.message.contains(text), "{failure}");
    }
    assert_eq!((world.node().registry().count(), world.events("workload_deployed").len()), (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_a_program_that_ends_by_itself_are_heard() {
    let mut world = World::start(json!({})).await;
    let script = b"#!/bin/sh\nseq 1 3000\necho last >&2\nexit 3\n";
    for number in 1..=5 {
        let started = world.run("counter", WorkloadType::Native, script).await;
        world.until("it is over", |it| it.events_of("workload_undeployed", &started.id).len() == 1).await;
        let lines = |it: &World| it.logs().iter().filter(|(_, line)| line.id == started.id).count();
        let all = eventually(timeout(), || std::future::ready(lines(&world) == 3_001)).await;
        assert!(all, "run {number}: {} lines", lines(&world));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chatty_service_loses_lines_aloud_and_a_deaf_one_is_killed() {
    let mut world = World::start(json!({"stop_grace_ms": 400})).await;
    let chatty = b"#!/bin/sh\ntrap '' INT TERM\nseq 1 40000\necho done\nwhile :; do sleep 0.2; done\n";
    let started = world.run("chatty", WorkloadType::Native, chatty).await;
    world.until("it wrote a lot", |it| it.logs().len() > 1_000).await;
    let lines: Vec<u64> = world.logs().iter().filter_map(|(_, line)| line.text.parse().ok()).collect();
    assert!(lines.is_sorted(), "in the order they were written");
    world.stop_workload(&started).await;
    assert!(world.workload(&started.id).await.is_none());
    world.until("the loss is told", |it| it.has_logged("log lines were dropped")).await;
    world.stop().await;
}

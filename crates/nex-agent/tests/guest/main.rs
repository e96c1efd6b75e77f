//! The agent as the init of real machines; the tests play the node.
//!
//! `NEX_KERNEL` names an uncompressed kernel with virtio, EROFS and overlayfs built in.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::fs;
use std::time::Instant;

use nex_protocol::agent::{Answer, Handshake};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::guest::{FromGuest, ToGuest};
use nex_testkit::{guest, skip};

mod kit;
mod machine;
mod metadata;
mod node;

use kit::{HOST, Kit, MEMORY, Shape, UID, YEAR_2033, welcome};
use machine::Machine;
use node::Node;

/// A machine whose agent has shaken hands.
async fn running(kit: &Kit) -> (Machine, Node, Handshake) {
    let mut node = Node::start().await;
    let mut machine = Machine::boot(kit, &Shape::default()).await;
    let began = Instant::now();
    machine.say(&welcome(node.identity(), YEAR_2033)).await;
    let handshake = node.handshake().await;
    println!("boot to ready {:?}, welcome to handshake {:?}", machine.took, began.elapsed());
    (machine, node, handshake)
}

async fn power_off(mut machine: Machine) {
    machine.say(&ToGuest::PowerOff { grace_ms: 5_000 }).await;
    assert_eq!(machine.hear().await, FromGuest::Ended { message: "exit code 0".to_owned() });
    assert!(machine.gone().await.is_success());
}

#[tokio::test]
async fn a_guest_runs_a_javascript_function_from_its_drive_and_goes_down_when_it_is_told_to() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(why) => skip!("a_guest_runs_a_javascript_function_from_its_drive_and_goes_down_when_it_is_told_to", why),
    };
    let (mut machine, node, handshake) = running(&kit).await;
    assert!(handshake.message.starts_with("Host-supplied metadata"), "{}", handshake.message);
    assert!(handshake.message.contains("own uid") && handshake.message.contains(", seccomp"), "{}", handshake.message);
    let path = machine.attach(guest::ECHO_JS.as_bytes()).await;
    assert_eq!(path, "/artifact/artifact");
    let accepted = node.deploy(&handshake, WorkloadType::V8, &path, guest::ECHO_JS.as_bytes()).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    assert_eq!(node.call("hello").await, r#"{"triggered_on":"calls.me","payload":"hello"}"#);
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_runs_a_webassembly_function_from_its_drive() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(why) => skip!("a_guest_runs_a_webassembly_function_from_its_drive", why),
    };
    let (mut machine, node, handshake) = running(&kit).await;
    let module = guest::assemble(guest::ECHO_WAT);
    let path = machine.attach(&module).await;
    let accepted = node.deploy(&handshake, WorkloadType::Wasm, &path, &module).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    assert_eq!(node.call("hello").await, "hello");
    power_off(machine).await;
}

#[tokio::test]
async fn a_workload_is_at_home_in_its_guest_and_finds_no_way_out() {
    let kit = match Kit::find() {
        Ok(kit) if kit.busybox.is_some() => kit,
        Ok(_) => skip!("a_workload_is_at_home_in_its_guest_and_finds_no_way_out", "no busybox"),
        Err(why) => skip!("a_workload_is_at_home_in_its_guest_and_finds_no_way_out", why),
    };
    let (mut machine, mut node, handshake) = running(&kit).await;
    let script = include_bytes!("workload.sh");
    let path = machine.attach(script).await;
    let accepted = node.deploy(&handshake, WorkloadType::Native, &path, script).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    let (lines, code, _) = node.lines().await;
    assert_eq!(code, 7, "{lines:#?}");
    let told = |what: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("nothing of {what} in {lines:#?}")).to_owned()
    };
    assert_eq!(told("uid"), UID.to_string());
    assert_eq!((told("hostname"), told("year")), ("vm-test".to_owned(), "2033".to_owned()));
    assert_eq!((told("mac"), told("mtu")), ("52:54:00:ab:cd:ef".to_owned(), "1400".to_owned()));
    assert_eq!(told("resolv"), "none");
    assert_eq!(told("hosts"), format!("{HOST} host.nex.internal"));
    assert_eq!(told("oom"), "500");
    assert_eq!(told("orphans"), "0");
    assert_eq!(told("caps"), "0000000000000000 1 2");
    for place in ["/work", "/tmp", "/dev/shm"] {
        assert!(lines.contains(&format!("writable {place}")), "{lines:#?}");
    }
    let escapes: Vec<_> = lines.iter().filter(|line| line.starts_with("ESCAPED")).collect();
    assert!(escapes.is_empty(), "{escapes:#?}");
    let held = lines.iter().filter(|line| line.starts_with("held")).count();
    assert_eq!(held, 18, "{lines:#?}");
    println!("{MEMORY} MiB: available {} kB with a workload; processes: {}", told("available"), told("seen"));
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_says_again_that_it_is_ready_and_survives_what_it_cannot_do() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(why) => skip!("a_guest_says_again_that_it_is_ready_and_survives_what_it_cannot_do", why),
    };
    let mut node = Node::start().await;
    let mut machine = Machine::boot(&kit, &Shape::default()).await;
    machine.reconnect().await;
    assert!(matches!(machine.hear().await, FromGuest::Ready { .. }));
    machine.say(&ToGuest::Attach { slot: 0 }).await;
    let refused =
        |said: FromGuest, why: &str| assert!(matches!(&said, FromGuest::Failed { message } if message.contains(why)), "{said:?}");
    refused(machine.hear().await, "no identity");
    machine.say(&welcome(node.identity(), YEAR_2033)).await;
    node.handshake().await;
    machine.say(&welcome(node.identity(), YEAR_2033)).await;
    refused(machine.hear().await, "identity already");
    machine.say(&ToGuest::Attach { slot: 5 }).await;
    refused(machine.hear().await, "no disk vdg");
    // The placeholder, and then something that is no image either.
    machine.say(&ToGuest::Attach { slot: 0 }).await;
    refused(machine.hear().await, "no image");
    fs::write(machine.path("garbage"), vec![0x55; 40_960]).unwrap();
    machine.swap("garbage").await;
    machine.say(&ToGuest::Attach { slot: 0 }).await;
    refused(machine.hear().await, "no image");
    // The stream may be lost while the agent runs; that changes nothing for it.
    machine.reconnect().await;
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_that_cannot_live_says_why_and_goes_down() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(why) => skip!("a_guest_that_cannot_live_says_why_and_goes_down", why),
    };
    let mut badly_told = Machine::boot(&kit, &Shape::default()).await;
    let ToGuest::Welcome(mut who) = welcome("{}".to_owned(), YEAR_2033) else { panic!("a welcome") };
    who.limits.uid = 0;
    badly_told.say(&ToGuest::Welcome(who)).await;
    let said = badly_told.hear().await;
    assert!(matches!(&said, FromGuest::Failed { message } if message.contains("uid may not be 0")), "{said:?}");
    badly_told.gone().await;
    assert!(badly_told.console().contains("uid may not be 0"), "{}", badly_told.console());

    let mut nobody = Machine::boot(&kit, &Shape::default()).await;
    nobody.say(&welcome("{}".to_owned(), YEAR_2033)).await;
    assert_eq!(nobody.hear().await, FromGuest::Ended { message: "exit code 1".to_owned() });
    assert!(nobody.gone().await.is_success());
    assert!(nobody.console().contains("the identity on standard input is not readable"), "{}", nobody.console());

    let mut unused = Machine::boot(&kit, &Shape::default()).await;
    unused.say(&ToGuest::PowerOff { grace_ms: 0 }).await;
    assert!(unused.gone().await.is_success());
}

#[tokio::test]
async fn a_workload_that_eats_the_memory_dies_and_its_agent_lives() {
    let kit = match Kit::find() {
        Ok(kit) if kit.busybox.is_some() => kit,
        Ok(_) => skip!("a_workload_that_eats_the_memory_dies_and_its_agent_lives", "no busybox"),
        Err(why) => skip!("a_workload_that_eats_the_memory_dies_and_its_agent_lives", why),
    };
    let (mut machine, mut node, handshake) = running(&kit).await;
    let script = b"#!/bin/sh\nexec /bin/busybox awk 'BEGIN { x = \"x\"; for (;;) x = x x }'\n";
    let path = machine.attach(script).await;
    let accepted = node.deploy(&handshake, WorkloadType::Native, &path, script).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    let (lines, code, signal) = node.lines().await;
    assert_eq!((code, signal.as_str()), (-1, "SIGKILL"), "{lines:#?}");
    assert!(node.ping().await);
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_learns_from_the_metadata_service_who_it_is() {
    let kit = match Kit::find() {
        Ok(kit) if kit.busybox.is_some() => kit,
        Ok(_) => skip!("a_guest_learns_from_the_metadata_service_who_it_is", "no busybox"),
        Err(why) => skip!("a_guest_learns_from_the_metadata_service_who_it_is", why),
    };
    let mut node = Node::start().await;
    let ToGuest::Welcome(who) = welcome(node.identity(), YEAR_2033) else { panic!("a welcome") };
    let (listener, port) = metadata::listen().await;
    let mut machine = Machine::boot(&kit, &Shape { metadata: Some(port), ..Shape::default() }).await;
    machine.say(&ToGuest::Metadata).await;
    let began = Instant::now();
    tokio::select! {
        handshake = node.handshake() => assert!(handshake.message.starts_with("Host-supplied metadata"), "{}", handshake.message),
        () = metadata::serve(listener, serde_json::to_string(&who).unwrap()) => {}
    }
    println!("metadata to handshake {:?}", began.elapsed());
    power_off(machine).await;
}

#[tokio::test]
async fn clones_of_a_waiting_guest_become_guests_of_their_own() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(why) => skip!("clones_of_a_waiting_guest_become_guests_of_their_own", why),
    };
    let shape = Shape { template: true, ..Shape::default() };
    let template = Machine::boot(&kit, &shape).await;
    template.freeze().await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut node = Node::start().await;
        let began = Instant::now();
        let mut clone = Machine::clone_of(&kit, &template, &shape).await;
        clone.say(&welcome(node.identity(), YEAR_2033)).await;
        let woken = began.elapsed();
        let handshake = node.handshake().await;
        println!("clone woken in {woken:?}, handshake after {:?}", began.elapsed());
        let path = clone.attach(guest::ECHO_JS.as_bytes()).await;
        let accepted = node.deploy(&handshake, WorkloadType::V8, &path, guest::ECHO_JS.as_bytes()).await;
        assert!(matches!(accepted, Answer::Done), "{accepted:?}");
        assert!(node.call("hello").await.contains("hello"));
        keys.push(handshake.xkey);
        power_off(clone).await;
    }
    assert_ne!(keys.first(), keys.last());
}

//! The agent as the init of real machines; the tests act as the node.
//!
//! `NEX_KERNEL` names an uncompressed kernel with virtio, EROFS and overlayfs built in.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::fs;
use std::time::Instant;

use nex_protocol::agent::{Answer, Handshake};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::guest::{FromGuest, ToGuest};
use nex_testkit::{guest, skip};

mod fixture;
mod machine;
mod metadata;
mod node;

use fixture::{Fixture, HOST, MEMORY, MachineOptions, UID, YEAR_2033, identity_message};
use machine::Machine;
use node::Node;

/// A machine whose agent has completed its handshake.
async fn running(fixture: &Fixture) -> (Machine, Node, Handshake) {
    let mut node = Node::start().await;
    let mut machine = Machine::boot(fixture, &MachineOptions::default()).await;
    let began = Instant::now();
    machine.identify(&identity_message(node.identity(), YEAR_2033)).await;
    let handshake = node.handshake().await;
    println!("boot to ready {:?}, identity to handshake {:?}", machine.boot_time, began.elapsed());
    (machine, node, handshake)
}

async fn power_off(mut machine: Machine) {
    machine.send(&ToGuest::PowerOff { grace_ms: 5_000 }).await;
    assert_eq!(machine.recv().await, FromGuest::Ended { message: "exit code 0".to_owned() });
    assert!(machine.exited().await.is_success());
}

#[tokio::test]
async fn a_guest_runs_a_javascript_function_from_its_drive_and_powers_off_on_request() {
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(why) => skip!("a_guest_runs_a_javascript_function_from_its_drive_and_powers_off_on_request", why),
    };
    let (mut machine, node, handshake) = running(&fixture).await;
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
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(why) => skip!("a_guest_runs_a_webassembly_function_from_its_drive", why),
    };
    let (mut machine, node, handshake) = running(&fixture).await;
    let module = guest::assemble(guest::ECHO_WAT);
    let path = machine.attach(&module).await;
    let accepted = node.deploy(&handshake, WorkloadType::Wasm, &path, &module).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    assert_eq!(node.call("hello").await, "hello");
    power_off(machine).await;
}

#[tokio::test]
async fn a_workload_sees_its_guest_and_cannot_escape() {
    let fixture = match Fixture::find() {
        Ok(fixture) if fixture.busybox.is_some() => fixture,
        Ok(_) => skip!("a_workload_sees_its_guest_and_cannot_escape", "no busybox"),
        Err(why) => skip!("a_workload_sees_its_guest_and_cannot_escape", why),
    };
    let (mut machine, mut node, handshake) = running(&fixture).await;
    let script = include_bytes!("workload.sh");
    let path = machine.attach(script).await;
    let accepted = node.deploy(&handshake, WorkloadType::Native, &path, script).await;
    assert!(matches!(accepted, Answer::Done), "{accepted:?}");
    let (lines, code, _) = node.lines().await;
    assert_eq!(code, 7, "{lines:#?}");
    let reported = |what: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("nothing of {what} in {lines:#?}")).to_owned()
    };
    assert_eq!(reported("uid"), UID.to_string());
    assert_eq!((reported("hostname"), reported("year")), ("vm-test".to_owned(), "2033".to_owned()));
    assert_eq!((reported("mac"), reported("mtu")), ("52:54:00:ab:cd:ef".to_owned(), "1400".to_owned()));
    assert_eq!(reported("resolv"), "none");
    assert_eq!(reported("hosts"), format!("{HOST} host.nex.internal"));
    assert_eq!(reported("oom"), "500");
    assert_eq!(reported("orphans"), "0");
    assert_eq!(reported("caps"), "0000000000000000 1 2");
    for place in ["/work", "/tmp", "/dev/shm"] {
        assert!(lines.contains(&format!("writable {place}")), "{lines:#?}");
    }
    let escapes: Vec<_> = lines.iter().filter(|line| line.starts_with("ESCAPED")).collect();
    assert!(escapes.is_empty(), "{escapes:#?}");
    let held = lines.iter().filter(|line| line.starts_with("held")).count();
    assert_eq!(held, 18, "{lines:#?}");
    println!("{MEMORY} MiB: available {} kB with a workload; processes: {}", reported("available"), reported("seen"));
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_reports_ready_again_and_survives_requests_it_cannot_serve() {
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(why) => skip!("a_guest_reports_ready_again_and_survives_requests_it_cannot_serve", why),
    };
    let mut node = Node::start().await;
    let mut machine = Machine::boot(&fixture, &MachineOptions::default()).await;
    machine.reconnect().await;
    assert!(matches!(machine.recv().await, FromGuest::Ready { .. }));
    machine.send(&ToGuest::Attach { slot: 0 }).await;
    let refused = |message: FromGuest, why: &str| {
        assert!(matches!(&message, FromGuest::Failed { message } if message.contains(why)), "{message:?}");
    };
    refused(machine.recv().await, "no identity");
    machine.identify(&identity_message(node.identity(), YEAR_2033)).await;
    node.handshake().await;
    machine.send(&identity_message(node.identity(), YEAR_2033)).await;
    refused(machine.recv().await, "identity already");
    machine.send(&ToGuest::Attach { slot: 5 }).await;
    refused(machine.recv().await, "no disk vdg");
    // The placeholder, then a file that is not an image.
    machine.send(&ToGuest::Attach { slot: 0 }).await;
    refused(machine.recv().await, "no image");
    fs::write(machine.path("garbage"), vec![0x55; 40_960]).unwrap();
    machine.swap("garbage").await;
    machine.send(&ToGuest::Attach { slot: 0 }).await;
    refused(machine.recv().await, "no image");
    // Losing the stream does not affect a running agent.
    machine.reconnect().await;
    power_off(machine).await;
}

#[tokio::test]
async fn a_guest_that_cannot_run_reports_why_and_powers_off() {
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(why) => skip!("a_guest_that_cannot_run_reports_why_and_powers_off", why),
    };
    let mut invalid = Machine::boot(&fixture, &MachineOptions::default()).await;
    let ToGuest::Identity(mut who) = identity_message("{}".to_owned(), YEAR_2033) else { panic!("an identity") };
    who.limits.uid = 0;
    invalid.send(&ToGuest::Identity(who)).await;
    let said = invalid.recv().await;
    assert!(matches!(&said, FromGuest::Failed { message } if message.contains("uid may not be 0")), "{said:?}");
    invalid.exited().await;
    assert!(invalid.console().contains("uid may not be 0"), "{}", invalid.console());

    let mut without_identity = Machine::boot(&fixture, &MachineOptions::default()).await;
    without_identity.send(&identity_message("{}".to_owned(), YEAR_2033)).await;
    let mut said = without_identity.recv().await;
    if said == FromGuest::Identified {
        said = without_identity.recv().await;
    }
    assert_eq!(said, FromGuest::Ended { message: "exit code 1".to_owned() });
    assert!(without_identity.exited().await.is_success());
    assert!(
        without_identity.console().contains("the identity on standard input is not readable"),
        "{}",
        without_identity.console()
    );

    let mut unused = Machine::boot(&fixture, &MachineOptions::default()).await;
    unused.send(&ToGuest::PowerOff { grace_ms: 0 }).await;
    assert!(unused.exited().await.is_success());
}

#[tokio::test]
async fn a_workload_out_of_memory_is_killed_and_its_agent_survives() {
    let fixture = match Fixture::find() {
        Ok(fixture) if fixture.busybox.is_some() => fixture,
        Ok(_) => skip!("a_workload_out_of_memory_is_killed_and_its_agent_survives", "no busybox"),
        Err(why) => skip!("a_workload_out_of_memory_is_killed_and_its_agent_survives", why),
    };
    let (mut machine, mut node, handshake) = running(&fixture).await;
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
async fn a_guest_reads_its_identity_from_the_metadata_service() {
    let fixture = match Fixture::find() {
        Ok(fixture) if fixture.busybox.is_some() => fixture,
        Ok(_) => skip!("a_guest_reads_its_identity_from_the_metadata_service", "no busybox"),
        Err(why) => skip!("a_guest_reads_its_identity_from_the_metadata_service", why),
    };
    let mut node = Node::start().await;
    let ToGuest::Identity(who) = identity_message(node.identity(), YEAR_2033) else { panic!("an identity") };
    let (listener, port) = metadata::listen().await;
    let mut machine = Machine::boot(&fixture, &MachineOptions { metadata: Some(port), ..MachineOptions::default() }).await;
    machine.send(&ToGuest::Metadata).await;
    let began = Instant::now();
    tokio::select! {
        handshake = node.handshake() => assert!(handshake.message.starts_with("Host-supplied metadata"), "{}", handshake.message),
        () = metadata::serve(listener, serde_json::to_string(&who).unwrap()) => {}
    }
    println!("metadata to handshake {:?}", began.elapsed());
    assert_eq!(machine.recv().await, FromGuest::Identified);
    power_off(machine).await;
}

#[tokio::test]
async fn clones_of_a_waiting_guest_are_separate_guests() {
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(why) => skip!("clones_of_a_waiting_guest_are_separate_guests", why),
    };
    let options = MachineOptions { template: true, ..MachineOptions::default() };
    let template = Machine::boot(&fixture, &options).await;
    template.snapshot().await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut node = Node::start().await;
        let began = Instant::now();
        let mut clone = Machine::clone_of(&fixture, &template, &options).await;
        clone.identify(&identity_message(node.identity(), YEAR_2033)).await;
        let resumed = began.elapsed();
        let handshake = node.handshake().await;
        println!("clone resumed in {resumed:?}, handshake after {:?}", began.elapsed());
        let path = clone.attach(guest::ECHO_JS.as_bytes()).await;
        let accepted = node.deploy(&handshake, WorkloadType::V8, &path, guest::ECHO_JS.as_bytes()).await;
        assert!(matches!(accepted, Answer::Done), "{accepted:?}");
        assert!(node.call("hello").await.contains("hello"));
        keys.push(handshake.xkey);
        power_off(clone).await;
    }
    assert_ne!(keys.first(), keys.last());
}

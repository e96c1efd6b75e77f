//! Health checks of a real agent, and the signal that ends a service.

use nex_protocol::agent::{AgentEvent, Answer, Deploy, Undeploy, subject};
use nex_protocol::deploy::{HealthCheck, WorkloadType};
use nex_protocol::id::InstanceId;

use crate::node::Node;

/// A service that ends when it is asked by one signal, and by no other.
const SERVICE: &[u8] = b"#!/bin/sh
trap '' INT TERM
trap 'echo asked; exit 0' HUP
while :; do sleep 0.05; done
";

fn check(probe: &str, threshold: u32) -> HealthCheck {
    let [interval, timeout] = [50, 2_000].map(|time| Some(std::time::Duration::from_millis(time)));
    HealthCheck::new(probe.parse().unwrap(), interval, timeout, threshold)
}

async fn health(node: &mut Node) -> (bool, String) {
    let told = match node.event(true).await.2 {
        AgentEvent::Health { healthy, message } => Some((healthy, message)),
        AgentEvent::Exited { .. } | AgentEvent::Stopped | AgentEvent::Stuck { .. } | AgentEvent::Calls { .. } => None,
    };
    told.expect("news of its health")
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_when_it_changes_and_sickness_again_and_again() {
    let mut node = Node::start().await;
    let service = node.prepare(WorkloadType::Native, "service", SERVICE).await;
    let instance = InstanceId::new(1);
    let script = "n=$(cat /tmp/tries 2>/dev/null || echo 0); echo $((n+1)) > /tmp/tries; [ $n -lt 3 ] || [ $n -gt 8 ] || exit 0; echo try $n >&2; exit 5";
    let checked = Deploy { health: Some(check(&format!("cmd:/bin/sh -c '{script}'"), 3)), ..service.clone() };
    assert_eq!(node.deploy(&instance, &checked).await, Answer::Done, "V2: it runs, whatever its health");
    let (healthy, why) = health(&mut node).await;
    assert!(!healthy && why.contains("failed: ") && why.contains("try 0"), "E7: why it is not well yet, at once: {why}");
    let (healthy, why) = health(&mut node).await;
    assert!(!healthy && why.contains("failed 3 times") && why.contains("exit status: 5: try 2"), "E7: {why}");
    assert_eq!(health(&mut node).await, (true, String::new()), "E7: the first pass");
    for round in 1..=2 {
        let (healthy, why) = health(&mut node).await;
        assert!(!healthy && why.contains(&format!("failed {} times", round * 3)), "E7: told again: {why}");
    }
    let body = serde_json::to_vec(&Undeploy { grace_ms: 5_000, signal: "SIGHUP".parse().ok() }).unwrap();
    let stopped = node.ask_in_background(subject::undeploy(&node.agent, &instance), body);
    loop {
        match node.event(true).await.2 {
            AgentEvent::Health { healthy: false, .. } | AgentEvent::Exited { code: 0, .. } => {}
            other => break assert_eq!(other, AgentEvent::Stopped, "E4, K4"),
        }
    }
    assert_eq!(serde_json::from_slice::<Answer>(&stopped.await.unwrap().payload).unwrap(), Answer::Done, "V5");
    // Its own program may be the check.
    let own = Deploy {
        health: Some(check("cmd:artifact check", 1)),
        ..node.prepare(WorkloadType::Native, "own", b"#!/bin/sh\n[ \"$1\" = check ] || exec sleep 100\n").await
    };
    assert_eq!(node.deploy(&InstanceId::new(2), &own).await, Answer::Done);
    assert_eq!(health(&mut node).await, (true, String::new()), "K2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_hangs_has_failed_and_a_closed_port_is_no_answer() {
    let mut node = Node::start().await;
    let service = node.prepare(WorkloadType::Native, "service", b"#!/bin/sh\nexec sleep 100\n").await;
    let hangs = HealthCheck { timeout_ms: 100, ..check("cmd:sleep 50", 1) };
    for (number, health_check, expected) in
        [(1, hangs, "no answer within 100 ms"), (2, check("tcp:1", 1), "port 1"), (3, check("http:1/", 1), "port 1")]
    {
        let instance = InstanceId::new(number);
        assert_eq!(node.deploy(&instance, &Deploy { health: Some(health_check), ..service.clone() }).await, Answer::Done);
        let (healthy, why) = health(&mut node).await;
        assert!(!healthy && why.contains(expected), "K3: {why}");
        let body = serde_json::to_vec(&Undeploy { grace_ms: 0, signal: None }).unwrap();
        let stopped = node.ask_in_background(subject::undeploy(&node.agent, &instance), body);
        while node.event(true).await.2 != AgentEvent::Stopped {}
        stopped.await.unwrap();
    }
}

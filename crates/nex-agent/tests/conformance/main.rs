//! The real agent held to `docs/agent-protocol.md`; the ids of clauses stand in the messages of the assertions.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod files;
mod health;
mod logs;
mod node;

use nex_protocol::agent::{AgentEvent, Answer, InvocationError, Limit, Outcome, PROTOCOL, Ping, Pong, RejectCode, subject};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::digest::Digest;
use nex_protocol::id::InstanceId;
use node::Node;

const ECHO: &[u8] = b"(subject, payload) => String.fromCharCode(...payload)";
const ENDLESS: &[u8] = b"() => { while (true) {} }";

fn rejected(answer: &Answer) -> Option<RejectCode> {
    match answer {
        Answer::Rejected { code, .. } => Some(*code),
        Answer::Done => None,
    }
}

async fn ping(node: &Node) -> u32 {
    let pong = node.ask(subject::ping(&node.agent), async_nats::HeaderMap::new(), Vec::new()).await;
    serde_json::from_slice::<Pong>(&pong.payload).unwrap().instances
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hosts_none_one_and_many_instances_each_by_its_own_id() {
    let mut node = Node::start().await;
    assert_eq!(node.handshake.protocol, PROTOCOL, "H2");
    assert_eq!(ping(&node).await, 0, "V1");
    let echo = node.prepare(WorkloadType::V8, "echo", ECHO).await;
    let instances: Vec<InstanceId> = (0..20).map(InstanceId::new).collect();
    for instance in &instances {
        assert_eq!(node.deploy(instance, &echo).await, Answer::Done, "V2");
    }
    assert_eq!(ping(&node).await, 20);
    for instance in &instances {
        assert_eq!(node.invoke(instance, 5_000, "hi").await, Outcome::Reply("\"hi\"".into()), "I2");
    }
    assert_eq!(rejected(&node.deploy(&instances[0], &echo).await), Some(RejectCode::Duplicate), "V4");
    let body = serde_json::to_vec(&Ping { ids: true }).unwrap();
    let pong = node.ask(subject::ping(&node.agent), async_nats::HeaderMap::new(), body).await;
    let mut ids = serde_json::from_slice::<Pong>(&pong.payload).unwrap().ids;
    ids.sort();
    assert_eq!(ids, instances, "V1: the ids, where they are asked for");
    let (first, others) = instances.split_first().unwrap();
    let (answer, event) = {
        let agent_node = &mut node;
        let body = serde_json::to_vec(&nex_protocol::agent::Undeploy { grace_ms: 1_000, signal: None }).unwrap();
        let asked = agent_node.ask_in_background(subject::undeploy(&agent_node.agent, first), body);
        let event = agent_node.event(true).await;
        (asked.await.unwrap(), event)
    };
    assert_eq!(serde_json::from_slice::<Answer>(&answer.payload).unwrap(), Answer::Done, "V5");
    assert_eq!((&event.1, &event.2), (first, &AgentEvent::Stopped), "E4");
    let gone = node.invoke(first, 1_000, "").await;
    assert!(matches!(gone, Outcome::Error(InvocationError { code: 404, .. })), "I4: {gone:?}");
    assert_eq!(node.invoke(&others[0], 5_000, "still").await, Outcome::Reply("\"still\"".into()));
    assert_eq!(node.undeploy(first, 0).await, Answer::Done, "V5: what is not there is stopped already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_while_a_call_runs_on_and_deadlines_hold() {
    let node = Node::start().await;
    let endless = node.prepare(WorkloadType::V8, "endless", ENDLESS).await;
    let instance = InstanceId::new(1);
    assert_eq!(node.deploy(&instance, &endless).await, Answer::Done);
    let (outcome, pong) = tokio::join!(node.invoke(&instance, 500, ""), ping(&node));
    assert_eq!(pong, 1, "V1");
    let limit = match &outcome {
        Outcome::Error(error) => error.limit,
        _ => None,
    };
    assert_eq!(limit, Some(Limit::Time), "I3: {outcome:?}");
    let malformed = node.ask(subject::invoke(&node.agent, &instance), async_nats::HeaderMap::new(), Vec::new()).await;
    let (outcome, _) = nex_bus::invocation::read_outcome(malformed);
    assert!(matches!(outcome, Outcome::Error(InvocationError { code: 400, .. })), "I4: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_is_rejected_by_name_and_leaves_nothing() {
    let node = Node::start().await;
    let echo = node.prepare(WorkloadType::V8, "echo", ECHO).await;
    let instance = InstanceId::new(1);
    let changed = nex_protocol::agent::Deploy { digest: Digest::of(b"other"), ..echo.clone() };
    assert_eq!(rejected(&node.deploy(&instance, &changed).await), Some(RejectCode::Artifact), "V3");
    let sealed = nex_protocol::agent::Deploy { environment: "AAAA".into(), ..echo.clone() };
    assert_eq!(rejected(&node.deploy(&instance, &sealed).await), Some(RejectCode::Environment), "V3");
    let broken = node.prepare(WorkloadType::V8, "broken", b"syntax error (").await;
    assert_eq!(rejected(&node.deploy(&instance, &broken).await), Some(RejectCode::Start), "V4");
    let body = node.ask(subject::deploy(&node.agent, &instance), async_nats::HeaderMap::new(), b"{".to_vec()).await;
    assert_eq!(rejected(&serde_json::from_slice(&body.payload).unwrap()), Some(RejectCode::Malformed), "V4");
    assert_eq!(ping(&node).await, 0, "V2: nothing is left");
    assert_eq!(node.deploy(&instance, &echo).await, Answer::Done, "the same id may be used again");
    let script = node.prepare(WorkloadType::Native, "script", b"#!/bin/sh\nexit 7\n").await;
    assert_eq!(rejected(&node.deploy(&InstanceId::new(2), &script).await), Some(RejectCode::Unsupported), "V8");
    let image = nex_protocol::agent::Deploy { r#type: WorkloadType::Oci, ..echo.clone() };
    assert_eq!(rejected(&node.deploy(&InstanceId::new(3), &image).await), Some(RejectCode::Unsupported), "V8");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_told_again_under_its_number_until_it_is_acknowledged() {
    let mut node = Node::start().await;
    let script = node.prepare(WorkloadType::Native, "script", b"#!/bin/sh\nexit 7\n").await;
    let (first, second) = (InstanceId::new(1), InstanceId::new(2));
    assert_eq!(node.deploy(&first, &script).await, Answer::Done);
    let told = node.event(false).await;
    assert_eq!((&told.1, &told.2), (&first, &AgentEvent::Exited { code: 7, message: String::new() }), "E3");
    assert_eq!(node.deploy(&second, &script).await, Answer::Done);
    let again = node.event(true).await;
    assert_eq!(again, told, "E2: the same number, before any later event");
    let later = node.event(true).await;
    assert_eq!(later.1, second);
    assert!(later.0 > told.0, "E1: numbers rise");
}

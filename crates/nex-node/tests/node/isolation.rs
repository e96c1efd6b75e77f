//! The isolation dial: who shares an agent, who does not, and what no request can go under.

use std::collections::BTreeMap;
use std::time::Duration;

use nex_client::Client;
use nex_client::deploy::Deployment;
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::{DeployResponse, Isolation, WorkloadType};
use nex_protocol::envelope::ErrorCode;
use nex_testkit::{eventually, guest, machines, skip};
use serde_json::json;

use crate::crash::is_back;
use crate::world::{World, kill9, timeout};

const GREET: &[u8] = guest::GREET_MJS.as_bytes();
const WHY: &str = "machines share nothing";

impl World {
    /// A function that shares an agent.
    pub(crate) async fn isolate(&self, name: &str, kind: WorkloadType, bytes: &[u8]) -> Deployment {
        Deployment { isolation: Some(Isolation::Isolate), ..self.prepare(name, kind, bytes).await }
    }

    /// Waits until there are so many agents, those that wait for a workload included.
    pub(crate) async fn until_agents(&self, count: usize) {
        let there = eventually(timeout(), async || self.agents().len() == count).await;
        assert!(there, "expected {count} agents: {:?}", self.agents());
    }

    /// The one agent that there was not before: functions that share one take none of those that wait. A compiler may still be going.
    pub(crate) async fn new_agent(&self, before: &BTreeMap<String, i32>) -> (String, i32) {
        self.until_agents(before.len() + 1).await;
        let mut new: Vec<_> = self.agents().into_iter().filter(|(id, _)| !before.contains_key(id)).collect();
        assert_eq!(new.len(), 1, "new agents: {new:?}");
        new.remove(0)
    }

    pub(crate) async fn isolation_of(&self, started: &DeployResponse) -> Option<Isolation> {
        self.workload(&started.id).await.and_then(|it| it.isolation)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_a_namespace_share_an_agent_which_ends_with_the_last_of_them() {
    if machines::in_machines() {
        skip!("functions_of_a_namespace_share_an_agent_which_ends_with_the_last_of_them", WHY);
    }
    let mut world = World::start(json!({})).await;
    let echo = guest::assemble(guest::ECHO_WAT);
    let mut started = Vec::new();
    for name in ["one", "two"] {
        started.push(world.deploy(&world.isolate(name, WorkloadType::V8, GREET).await).await);
    }
    started.push(world.deploy(&world.isolate("echo", WorkloadType::Wasm, &echo).await).await);
    world.until_agents(2).await;
    for name in ["one", "two"] {
        assert_eq!(world.call(name, "you").await, "\"Hello, you!\"");
    }
    assert_eq!(world.call("echo", "as it is").await, "as it is");
    for started in &started {
        assert_eq!(world.isolation_of(started).await, Some(Isolation::Isolate), "{}", started.name);
    }
    // Another namespace has an agent of its own, and so has who asks for it, and every service.
    let other = Client::new(world.client.nats().clone(), "other".parse().unwrap());
    let stranger = world.isolate("stranger", WorkloadType::V8, GREET).await;
    let stranger = Box::pin(other.deploy(&stranger, &world.target(), &world.keys)).await.unwrap();
    world.until_agents(3).await;
    let own = world.run("own", WorkloadType::V8, GREET).await;
    let service = world.run("service", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    world.until_agents(5).await;
    for started in [&own, &service] {
        assert_eq!(world.isolation_of(started).await, Some(Isolation::Process), "{}", started.name);
        world.stop_workload(started).await;
    }
    let (id, name) = (stranger.id.parse().unwrap(), stranger.name.parse().unwrap());
    other.stop(&world.target().node, &id, &name, &world.keys.issuer).await.unwrap();
    world.until_agents(2).await;
    world.stop_workload(&started[0]).await;
    assert_eq!(world.call("two", "you").await, "\"Hello, you!\"");
    assert!(world.client.call("one", "you".into(), Duration::from_secs(1)).await.is_err(), "nobody is left to answer");
    for started in &started[1..] {
        world.stop_workload(started).await;
    }
    world.until_agents(1).await;
    world.stop().await;
    world.until("every end is told once", |it| it.events("workload_undeployed").len() == 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_agent_is_followed_by_another_one() {
    if machines::in_machines() {
        skip!("a_full_agent_is_followed_by_another_one", WHY);
    }
    let mut world = World::start(json!({"isolation": {"default": "isolate", "max_instances": 2}})).await;
    let mut started = Vec::new();
    for number in 0..5 {
        started.push(world.run(&format!("f{number}"), WorkloadType::V8, GREET).await);
    }
    world.until_agents(4).await;
    for number in 0..5 {
        assert_eq!(world.call(&format!("f{number}"), "you").await, "\"Hello, you!\"");
    }
    for started in &started[..4] {
        world.stop_workload(started).await;
    }
    world.until_agents(2).await;
    assert_eq!(world.call("f4", "you").await, "\"Hello, you!\"");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_goes_under_a_floor_and_a_node_that_cannot_give_it_makes_no_bid() {
    if machines::in_machines() {
        skip!("no_request_goes_under_a_floor_and_a_node_that_cannot_give_it_makes_no_bid", WHY);
    }
    let config = json!({"isolation": {"default": "isolate", "namespaces": {"bank": "process", "vault": "microvm"}}});
    let mut world = World::start(config).await;
    let of = |namespace: &str| Client::new(world.client.nats().clone(), namespace.parse().unwrap());
    let plain = world.prepare("greet", WorkloadType::V8, GREET).await;
    let isolate = Deployment { isolation: Some(Isolation::Isolate), ..plain.clone() };
    let (target, keys) = (world.target(), world.keys.clone());
    let refusal = async |namespace: &str, deployment: &Deployment| {
        Box::pin(of(namespace).deploy(deployment, &target, &keys)).await.unwrap_err().to_string()
    };
    assert!(
        refusal("bank", &isolate).await.contains("keeps workloads of this namespace apart by process at least, not by isolate")
    );
    assert!(refusal("vault", &plain).await.contains("this node's sandboxes give isolate,process, not microvm"));
    let bank = Box::pin(of("bank").deploy(&plain, &target, &keys)).await.unwrap();
    world.until_agents(2).await;
    let service = world.prepare("service", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    let failure = world.refused(&Deployment { isolation: Some(Isolation::Isolate), ..service }).await;
    assert_eq!(failure.code, ErrorCode::BadRequest);
    assert!(failure.message.contains("shares no agent with others"), "{failure}");

    let asked = |isolation: &str, kind: &str| AuctionRequest {
        isolation: Some(isolation.into()),
        workload_types: Some(vec![kind.into()]),
        ..AuctionRequest::default()
    };
    for (namespace, request, reason) in [
        ("default", asked("isolate", "v8"), None),
        ("bank", asked("process", "v8"), None),
        ("bank", asked("isolate", "v8"), Some("apart by process at least")),
        ("default", asked("microvm", "native"), Some("not microvm")),
        ("default", asked("isolate", "native"), Some("shares no agent")),
        ("default", asked("sideways", "v8"), Some("no isolation")),
        ("vault", AuctionRequest { workload_types: Some(vec!["v8".into()]), ..AuctionRequest::default() }, Some("not microvm")),
    ] {
        let auction = of(namespace).auction(&request, Duration::from_secs(2)).await.unwrap();
        match reason {
            None => assert_eq!((auction.bids.len(), auction.declined.len()), (1, 0), "{namespace} {request:?}"),
            Some(reason) => assert!(auction.declined[0].declined.join(" ").contains(reason), "{namespace}: {auction:?}"),
        }
    }
    let tags = world.client.info(&target.node).await.unwrap().tags;
    assert_eq!(tags["nex.isolation"], "isolate,process");
    let (id, name) = (bank.id.parse().unwrap(), bank.name.parse().unwrap());
    of("bank").stop(&target.node, &id, &name, &keys.issuer).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_shared_agent_dies_all_its_functions_run_again_and_its_death_is_told_once() {
    if machines::in_machines() {
        skip!("when_a_shared_agent_dies_all_its_functions_run_again_and_its_death_is_told_once", WHY);
    }
    let mut world = World::start(json!({"isolation": {"default": "isolate"}})).await;
    let before = world.agents();
    let mut started = Vec::new();
    for number in 0..20 {
        started.push(world.run(&format!("f{number}"), WorkloadType::V8, GREET).await);
    }
    world.until_agents(2).await;
    let shared = world.new_agent(&before).await;
    kill9(shared.1);
    let again = async |started: &DeployResponse| {
        let again = async || world.workload(&started.id).await.is_some_and(|it| it.restarts == 1 && it.state == "running");
        assert!(eventually(timeout(), again).await, "{}: {:?}", started.name, world.workload(&started.id).await);
    };
    for started in &started {
        again(started).await;
        assert_eq!(world.call_again(&started.name, "you").await, "\"Hello, you!\"");
    }
    world.until_agents(2).await;
    let told: Vec<_> = world.events("agent_stopped").into_iter().filter(|it| it.data["agent_id"] == shared.0.as_str()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    world.stop().await;
    for started in &started {
        assert_eq!(world.events_of("workload_deployed", &started.id).len(), 1);
        world.until("its end is told", |it| it.events_of("workload_undeployed", &started.id).len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_shared_agent_is_taken_over_with_all_its_functions_and_none_that_nobody_knows() {
    if machines::in_machines() {
        skip!("a_killed_nodes_shared_agent_is_taken_over_with_all_its_functions_and_none_that_nobody_knows", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let mut started = Vec::new();
    for number in 0..10 {
        let kind = if number % 2 == 0 { WorkloadType::V8 } else { WorkloadType::Wasm };
        let bytes = if kind == WorkloadType::V8 { GREET.to_vec() } else { guest::assemble(guest::ECHO_WAT) };
        let deployment = world.isolate(&format!("f{number}"), kind, &bytes).await;
        started.push(world.start_on_doomed(&doomed, &deployment).await);
    }
    let forgotten = world.isolate("forgotten", WorkloadType::V8, GREET).await;
    let forgotten = world.start_on_doomed(&doomed, &forgotten).await;
    for started in &started {
        world.call(&started.name, "you").await;
    }
    world.until_agents(2).await;
    let before = world.agents();
    doomed.crash();
    for started in &started {
        world.call(&started.name, "you").await;
    }
    {
        let journal = world.left_journal().await;
        journal.remove_workload(forgotten.id.parse().unwrap()).await.unwrap();
    }
    world.start_node().await;
    for started in &started {
        is_back(&world, started).await;
        let summary = world.summary(started).await;
        assert_eq!((summary.restarts, summary.isolation), (0, Some(Isolation::Isolate)));
        world.call(&started.name, "you").await;
    }
    let kept: Vec<_> = world.agents().into_iter().filter(|agent| before.get(&agent.0) == Some(&agent.1)).collect();
    assert_eq!(kept.len(), 1, "one agent lives on, with all of them");
    let gone =
        eventually(timeout(), async || world.client.call("forgotten", "you".into(), Duration::from_secs(1)).await.is_err());
    assert!(gone.await, "nobody knows it, and it runs");
    let workload = world.node().registry().get(&started[0].id).unwrap();
    let counted = || workload.counters.all()[0].succeeded.load(std::sync::atomic::Ordering::Relaxed);
    world.until("calls that nobody counted meanwhile are", |_| counted() >= 2).await;
    // It is stopped as any other, and the agent goes with the last one.
    for started in &started {
        world.stop_workload(started).await;
    }
    world.until_agents(1).await;
    world.stop().await;
}

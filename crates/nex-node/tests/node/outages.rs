//! Things that die: warm agents, the internal bus, the user's NATS. None of them takes a workload along.

use std::time::Duration;

use nex_protocol::deploy::WorkloadType;
use nex_testkit::{eventually, guest, machines, skip};
use serde_json::json;

use crate::functions::relaying;
use crate::world::{World, kill9, timeout};

const GREET: &[u8] = guest::GREET_MJS.as_bytes();

#[tokio::test(flavor = "multi_thread")]
async fn deploys_wait_for_agents_where_none_is_warm() {
    let mut world = World::start(json!({})).await;
    let greet = world.prepare("greet", WorkloadType::V8, GREET).await;
    world.until_warm(1).await;
    world.warm_agents().into_values().for_each(kill9);
    let deploys = futures::future::join_all((0..4).map(|_| world.deploy(&greet))).await;
    let ids: std::collections::BTreeSet<_> = deploys.iter().map(|started| &started.id).collect();
    assert_eq!((ids.len(), world.node().registry().count()), (4, 4));
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_gets_another_agent_when_its_own_dies_on_it() {
    let mut world = World::start(json!({"machine_pool_size": 2})).await;
    let greet = world.prepare("greet", WorkloadType::V8, GREET).await;
    for _ in 0..5 {
        world.until_warm(2).await;
        // The node has not noticed yet when the deploy arrives.
        let first = world.warm_agents().into_values().next().unwrap();
        kill9(first);
        let started = world.deploy(&greet).await;
        world.stop_workload(&started).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_agent_that_dies_is_replaced_and_leaves_nothing() {
    let mut world = World::start(json!({"machine_pool_size": 2})).await;
    world.until_warm(2).await;
    let before = world.agents();
    assert_eq!(before.len(), 2);
    before.values().copied().for_each(kill9);
    world
        .until("others take their place", |it| {
            let now = it.agents();
            now.len() == 2 && now.keys().all(|id| !before.contains_key(id))
        })
        .await;
    world.until_warm(2).await;
    world.run("greet", WorkloadType::V8, GREET).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    assert!(world.events("workload_undeployed").is_empty());
    world.stop().await;
}

/// A node whose internal bus dies with a function and a service on it.
async fn the_internal_bus_comes_back(mut world: World) {
    let greet = world.run("greet", WorkloadType::V8, GREET).await;
    let ticker = b"#!/bin/sh\nwhile :; do echo tick; sleep 0.1; done\n";
    let ticker = world.run("ticker", WorkloadType::Native, ticker).await;
    world.until_warm(1).await;
    let (url, old, agents) = (world.bus_url(), world.bus_pid().unwrap(), world.agents());
    kill9(old);
    world.until("it is started again", |it| it.bus_pid().is_some_and(|pid| pid != old)).await;
    assert!(url.is_some());
    world.until("it listens where it did", |it| it.bus_url() == url).await;
    assert_eq!(world.call_again("greet", "again").await, "\"Hello, again!\"");
    let ticks = |it: &World| it.logs().iter().filter(|(_, line)| line.text == "tick").count();
    let before = ticks(&world);
    world.until("the service is heard again", |it| ticks(it) > before + 3).await;
    for started in [&greet, &ticker] {
        let known = world.workload(&started.id).await.unwrap();
        assert_eq!((known.state.as_str(), known.restarts), ("running", 0), "{}", started.name);
    }
    assert!(agents.keys().all(|id| world.agents().contains_key(id)), "no agent was lost");
    let echo = world.run("echo", WorkloadType::Wasm, &guest::assemble(guest::ECHO_WAT)).await;
    assert_eq!(world.call("echo", "ping").await, "ping");
    for started in [&greet, &ticker, &echo] {
        world.stop_workload(started).await;
    }
    world.stop().await;
    world.until("the node said goodbye", |it| it.events("node_stopped").len() == 1).await;
    assert_eq!(world.events("node_started").len(), 1);
    for started in [greet, ticker, echo] {
        assert_eq!(world.events_of("workload_deployed", &started.id).len(), 1, "{}", started.name);
        assert_eq!(world.events_of("workload_undeployed", &started.id).len(), 1, "{}", started.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_bus_comes_back_where_agents_are_called_directly() {
    the_internal_bus_comes_back(World::start(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_bus_comes_back_where_the_node_relays() {
    the_internal_bus_comes_back(relaying(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_called_directly_does_not_need_the_internal_bus_and_a_busy_agent_is_not_lost() {
    if machines::in_machines() {
        let test = "a_function_called_directly_does_not_need_the_internal_bus_and_a_busy_agent_is_not_lost";
        skip!(test, "agents in machines are never called directly: no credentials go in");
    }
    let mut world = World::start(json!({"agent_ping_timeout_ms": 200})).await;
    let started = world.run("greet", WorkloadType::V8, GREET).await;
    let bus = nix::unistd::Pid::from_raw(world.bus_pid().unwrap());
    nix::sys::signal::kill(bus, nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    // Long enough for a ping to be missed.
    let began = std::time::Instant::now();
    world.until("a ping was missed", |_| began.elapsed() > Duration::from_secs(6)).await;
    nix::sys::signal::kill(bus, nix::sys::signal::Signal::SIGCONT).unwrap();
    world.until("the calls are told", |it| !it.events("function_exec_succeeded").is_empty()).await;
    assert_eq!(world.workload(&started.id).await.unwrap().restarts, 0);
    world.stop().await;
}

/// A node whose user's NATS is away for a moment.
async fn the_users_nats_comes_back(mut world: World) {
    let greet = world.run("greet", WorkloadType::V8, GREET).await;
    let sleeper = world.run("sleeper", WorkloadType::Native, b"#!/bin/sh\necho up\nexec sleep 1000\n").await;
    world.until_warm(1).await;
    let agents = world.agents();
    let node = world.target().node;
    world.nats.restart().await;
    let answers = eventually(timeout(), async || world.client.info(&node).await.is_ok_and(|info| info.machines.len() == 2));
    assert!(answers.await, "the node does not answer again");
    assert_eq!(world.call_again("greet", "again").await, "\"Hello, again!\"");
    assert_eq!(world.agents(), agents, "no agent was lost");
    for started in [&greet, &sleeper] {
        let known = world.workload(&started.id).await.unwrap();
        assert_eq!((known.state.as_str(), known.restarts), ("running", 0), "{}", started.name);
    }
    // Once, and not twice: nothing is subscribed a second time.
    for (subject, body) in [("greet", "once"), ("$NEX.PING", "")] {
        let answers = world.ask_all(&[(subject.to_owned(), body.into())]).await;
        assert_eq!(answers[0].len(), 1, "{subject}: {answers:?}");
    }
    let again = world.run("again", WorkloadType::V8, GREET).await;
    assert_eq!(world.call("again", "you").await, "\"Hello, you!\"");
    world.stop_workload(&again).await;
    world.stop_workload(&greet).await;
    world.until("their ends are told", |it| it.events("workload_undeployed").len() == 2).await;
    assert!(world.events_of("workload_undeployed", &sleeper.id).is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_nats_comes_back_and_nothing_was_killed() {
    the_users_nats_comes_back(World::start(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_nats_comes_back_to_a_node_that_relays() {
    the_users_nats_comes_back(relaying(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_in_order_while_the_users_nats_is_away() {
    let mut world = World::start(json!({"stop_grace_ms": 500})).await;
    world.run("greet", WorkloadType::V8, GREET).await;
    world.run("sleeper", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    world.nats.kill9();
    tokio::time::timeout(Duration::from_secs(30), world.stop()).await.expect("a node stops without its NATS, too");
}

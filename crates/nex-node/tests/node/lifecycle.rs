//! However a workload ends: said once; and what must not end is started again.

use nex_client::deploy::Deployment;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::{eventually, guest};
use serde_json::json;

use crate::world::{World, kill9, timeout};

const SLEEPER: &[u8] = b"#!/bin/sh\nexec sleep 1000\n";

impl World {
    /// The one event about the end of a workload: its code and its text.
    async fn end_of(&self, id: &str) -> (i64, String) {
        self.until("its end is told", |it| !it.events_of("workload_undeployed", id).is_empty()).await;
        let event = &self.events_of("workload_undeployed", id)[0];
        assert!(event.source.ends_with(id), "{event:?}");
        assert_eq!(event.namespace.as_deref(), Some("default"));
        (event.data["code"].as_i64().unwrap(), event.data["message"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn restarted(&self, id: &str, times: u32) {
        let held = eventually(timeout(), async || {
            self.workload(id).await.is_some_and(|it| it.restarts >= times && it.state == "running")
        });
        assert!(held.await, "{id} was not started again {times} times: {:?}", self.workload(id).await);
    }

    async fn essential(&self, name: &str, script: &[u8]) -> Deployment {
        Deployment { essential: true, ..self.prepare(name, WorkloadType::Native, script).await }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_exactly_once_with_its_code() {
    let mut world = World::start(json!({})).await;
    let good = world.run("good", WorkloadType::Native, b"#!/bin/sh\nexit 0\n").await;
    let bad = world.run("bad", WorkloadType::Native, b"#!/bin/sh\nexit 3\n").await;
    let shot = world.run("shot", WorkloadType::Native, b"#!/bin/sh\nkill -9 $$\n").await;
    for (started, code, text) in [(&good, 0, "status: 0"), (&bad, 3, "status: 3"), (&shot, -1, "SIGKILL")] {
        let (told, message) = world.end_of(&started.id).await;
        assert!(told == code && message.contains(text) && message.starts_with("Exited workload: "), "{told} {message}");
    }
    let sleeper = world.prepare("sleeper", WorkloadType::Native, SLEEPER).await;
    let (lost, agent) = world.deploy_watched(&sleeper).await;
    kill9(agent);
    let (code, message) = world.end_of(&lost.id).await;
    assert!(code == -1 && message.contains("lost"), "{code} {message}");
    let stopped = world.deploy(&sleeper).await;
    world.stop_workload(&stopped).await;
    assert_eq!(world.end_of(&stopped.id).await, (0, "Workload shutdown requested".into()));
    let last = world.deploy(&sleeper).await;
    assert_eq!(world.workload(&last.id).await.unwrap().name, "sleeper");
    world.stop().await;
    assert_eq!(world.end_of(&last.id).await.1, "node shutdown");
    world.until("the node said goodbye", |it| it.events("node_stopped").len() == 1).await;
    for started in [good, bad, shot, lost, stopped, last] {
        assert_eq!(world.events_of("workload_deployed", &started.id).len(), 1, "{}", started.name);
        assert_eq!(world.events_of("workload_undeployed", &started.id).len(), 1, "{}", started.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_essential_service_that_fails_is_started_again_under_its_id_with_longer_and_longer_pauses() {
    let mut world = World::start(json!({})).await;
    let started = world.deploy(&world.essential("flaky", b"#!/bin/sh\necho here we go\nexit 3\n").await).await;
    let pauses = |it: &World| -> Vec<u64> {
        let pause = |text: &str| text.rsplit_once("starting again in ")?.1.strip_suffix(" ms")?.parse().ok();
        it.logs().iter().filter_map(|(_, line)| pause(&line.text)).collect()
    };
    world.until("it pauses twice", |it| pauses(it).len() >= 2).await;
    // Up to a quarter of each is left out.
    assert!((375..=500).contains(&pauses(&world)[0]) && (750..=1_000).contains(&pauses(&world)[1]), "{:?}", pauses(&world));
    world
        .until("it runs again and again", |it| it.logs().iter().filter(|(_, line)| line.text == "here we go").count() >= 3)
        .await;
    assert!(world.logs().iter().all(|(subject, line)| line.id == started.id && subject.ends_with(&started.id)));
    assert!(world.events_of("workload_undeployed", &started.id).is_empty(), "it is not over");
    world.stop_workload(&started).await;
    world.stop().await;
    world.until("the node said goodbye", |it| it.events("node_stopped").len() == 1).await;
    assert_eq!(world.events_of("workload_deployed", &started.id).len(), 1);
    assert_eq!(world.events_of("workload_undeployed", &started.id).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_essential_service_whose_agent_is_killed_is_started_again_and_one_that_exits_with_0_is_not() {
    let mut world = World::start(json!({})).await;
    let (started, agent) = world.deploy_watched(&world.essential("sleeper", SLEEPER).await).await;
    kill9(agent);
    world.restarted(&started.id, 1).await;
    let done = world.deploy(&world.essential("done", b"#!/bin/sh\nexit 0\n").await).await;
    assert_eq!(world.end_of(&done.id).await.0, 0);
    assert!(world.workload(&done.id).await.is_none());
    // A node that drains starts nothing again.
    world.client.lame_duck(&world.target().node).await.unwrap();
    let mut agents = world.agents();
    for warm in world.warm_agents().keys() {
        agents.remove(warm);
    }
    agents.into_values().for_each(kill9);
    assert_eq!(world.end_of(&started.id).await.0, -1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_whose_agent_is_killed_is_served_again_under_its_id() {
    let mut world = World::start(json!({})).await;
    let greet = world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let (started, agent) = world.deploy_watched(&greet).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    kill9(agent);
    world.restarted(&started.id, 1).await;
    assert_eq!(world.call_again("greet", "again").await, "\"Hello, again!\"");
    world.stop_workload(&started).await;
    assert_eq!(world.end_of(&started.id).await.1, "Workload shutdown requested");
    assert_eq!(world.events_of("workload_undeployed", &started.id).len(), 1);
    world.stop().await;
}

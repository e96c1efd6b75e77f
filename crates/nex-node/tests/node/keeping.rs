//! Services that are kept as their policies say: started again or not, asked to end by their own signal, for as long as they were given.

use std::time::Duration;

use nex_client::deploy::Deployment;
use nex_protocol::deploy::{RunPolicy, WorkloadType};
use nex_protocol::envelope::ErrorCode;
use nex_testkit::{eventually, guest, machines, skip};
use serde_json::json;

use crate::adoption::sleeping;
use crate::world::{World, processes, timeout};

impl World {
    /// A script with this policy.
    pub(crate) async fn kept(&self, name: &str, script: &str, policy: &str) -> Deployment {
        let policy = Some(serde_json::from_str::<RunPolicy>(policy).unwrap());
        Deployment { policy, ..self.prepare(name, WorkloadType::Native, format!("#!/bin/sh\n{script}\n").as_bytes()).await }
    }

    /// Waits until a workload was tried again so often, whether or not it lives just now.
    async fn tried_again(&self, id: &str, times: u32) {
        let again = eventually(timeout(), async || self.workload(id).await.is_some_and(|it| it.restarts >= times));
        assert!(again.await, "{:?}", self.workload(id).await);
    }
}

/// Seconds that no other test sleeps for.
fn unique(number: u32) -> u32 {
    3_000_000 + std::process::id() * 10 + number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_started_again_after_the_ends_that_its_policy_names_and_after_no_others() {
    let mut world = World::start(json!({})).await;
    let always = world.kept("always", "exit 0", r#"{"restart":"always"}"#).await;
    let always = world.deploy(&always).await;
    let failing = world.kept("failing", "exit 3", r#"{"restart":"on-failure"}"#).await;
    let failing = world.deploy(&failing).await;
    let done = world.kept("done", "exit 0", r#"{"restart":"on-failure"}"#).await;
    let done = world.deploy(&done).await;
    let mut never = world.kept("never", "exit 3", r#"{"restart":"never"}"#).await;
    never.essential = true;
    let never = world.deploy(&never).await;
    for (ended, code) in [(&done, 0), (&never, 3)] {
        world.until("it is over", |it| !it.events_of("workload_undeployed", &ended.id).is_empty()).await;
        let told = &world.events_of("workload_undeployed", &ended.id)[0];
        assert!(told.data["code"] == code && told.data["cause"] == "exit", "{told:?}");
    }
    for (kept, code) in [(&always, 0), (&failing, 3)] {
        world.tried_again(&kept.id, 2).await;
        let summary = world.workload(&kept.id).await.unwrap();
        assert_eq!(summary.last_exit.unwrap().code, code);
        world.stop_workload(kept).await;
        world.until("its end is told", |it| it.events_of("workload_undeployed", &kept.id).len() == 1).await;
        assert_eq!(world.events_of("workload_undeployed", &kept.id)[0].data["cause"], "stopped");
    }
    assert_eq!(world.node().registry().count(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_to_end_by_its_own_signal_and_after_its_grace_everything_it_started_is_killed() {
    let mut world = World::start(json!({"stop_grace_ms": 60_000})).await;
    let script = format!(
        "trap 'echo got INT' INT\ntrap 'echo got TERM' TERM\ntrap 'echo got QUIT' QUIT\nsetsid sleep {} &\necho began\nwhile :; do sleep 0.05; done",
        unique(1)
    );
    let deaf = world.kept("deaf", &script, r#"{"stop_signal":"SIGQUIT","stop_grace_ms":300}"#).await;
    let deaf = world.deploy(&deaf).await;
    world.until("it began", |it| it.has_logged("began")).await;
    if !machines::in_machines() {
        sleeping(unique(1)).await;
    }
    assert_eq!(world.workload(&deaf.id).await.unwrap().stop_grace_ms, Some(300));
    world.stop_workload(&deaf).await;
    world.until("it was asked", |it| it.has_logged("got QUIT")).await;
    assert!(!world.has_logged("got INT") && !world.has_logged("got TERM"));
    let line = format!("sleep\0{}\0", unique(1));
    assert!(!processes().iter().any(|(_, it)| it.ends_with(&line)), "what it started in a session of its own is left");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_cannot_be_are_refused_before_any_work() {
    let mut world = World::start(json!({})).await;
    let function = Deployment {
        policy: Some(serde_json::from_str(r#"{"restart":"always"}"#).unwrap()),
        ..world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await
    };
    let failure = world.refused(&function).await;
    assert!(failure.code == ErrorCode::BadRequest && failure.message.contains("a v8 function has no policy"), "{failure}");
    for (policy, expected) in [
        (r#"{"restart":"sometimes"}"#, "no restart policy"),
        (r#"{"stop_signal":"SIGSEGV"}"#, "no stop signal"),
        (r#"{"stop_grace_ms":86400000}"#, "stop_grace_ms has to be"),
        (r#"{"health":{"probe":"cmd:"}}"#, "no health check"),
        (r#"{"health":{"probe":"tcp:80","threshold":4294967295}}"#, "threshold has to be"),
        (r#"{"health":{"probe":"tcp:80"},"job":{}}"#, "a job has no health check"),
    ] {
        let deployment = world.kept("service", "exit 0", policy).await;
        let failure = world.refused(&deployment).await;
        assert!(failure.code == ErrorCode::BadRequest && failure.message.contains(expected), "{policy}: {failure}");
    }
    assert!(world.events("workload_deployed").is_empty());
    world.stop().await;
}

/// What was counted of it, and how long it has still to wait, is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_successor_goes_on_counting_restarts_and_keeps_policies() {
    if machines::in_machines() {
        skip!(
            "a_killed_nodes_successor_goes_on_counting_restarts_and_keeps_policies",
            "it looks at the process of a workload, which is inside; machines that are taken over have tests of their own"
        );
    }
    let (mut world, doomed) = World::crashing().await;
    let failing = world.kept("failing", "echo tried\nexit 3", r#"{"restart":"on-failure"}"#).await;
    let failing = world.start_on_doomed(&doomed, &failing).await;
    let script = format!("trap 'echo got HUP; exit 0' HUP\necho began\nsleep {} &\nwait", unique(2));
    let sleeper = world.kept("sleeper", &script, r#"{"stop_signal":"SIGHUP","stop_grace_ms":20000}"#).await;
    let sleeper = world.start_on_doomed(&doomed, &sleeper).await;
    let process = sleeping(unique(2)).await;
    world.tried_again(&failing.id, 2).await;
    doomed.crash();
    let tried = world.logs().iter().filter(|(_, line)| line.text == "tried").count();
    world.start_node().await;
    let summary = world.summary(&failing).await;
    assert!(summary.restarts >= 2, "{summary:?}");
    world.until("it is tried again", |it| it.logs().iter().filter(|(_, line)| line.text == "tried").count() > tried).await;
    assert_eq!(sleeping(unique(2)).await, process);
    world.stop_workload(&sleeper).await;
    world.until("its signal is still its own", |it| it.has_logged("got HUP")).await;
    world.stop_workload(&failing).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_stopped_does_not_wait_longer_than_its_own_grace() {
    let mut world = World::start(json!({"stop_grace_ms": 300})).await;
    let deaf =
        world.kept("deaf", "trap '' TERM INT\necho began\nwhile :; do sleep 0.05; done", r#"{"stop_grace_ms":600000}"#).await;
    world.deploy(&deaf).await;
    world.until("it began", |it| it.has_logged("began")).await;
    let stopped = tokio::time::timeout(machines::timeout(Duration::from_secs(30)), Box::pin(world.stop())).await;
    assert!(stopped.is_ok(), "a workload keeps its node from stopping");
}

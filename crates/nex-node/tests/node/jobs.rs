//! Jobs: they run to their end, are tried again as often as they may, have a deadline, and what became of them is known for a day.

use std::time::Duration;

use nex_client::discover::Ended;
use nex_protocol::control::{EndedWorkload, ExitCause, WorkloadPingRequest};
use nex_testkit::{eventually, machines, skip};
use serde_json::json;

use crate::adoption::sleeping;
use crate::world::{World, kill9, processes, timeout};

impl World {
    /// What is known of a workload that has ended, with its last lines.
    async fn ended(&self, id: &str) -> EndedWorkload {
        let more = WorkloadPingRequest { ended: true, tail: Some(10), ..WorkloadPingRequest::default() };
        let found = std::sync::Mutex::new(None);
        let over = eventually(timeout(), async || {
            let ended = self.client.find(Some(id), &more, Duration::from_secs(2)).await.unwrap().ended;
            ended.into_iter().next().map(|Ended { workload, .. }| *found.lock().unwrap() = Some(workload)).is_some()
        });
        assert!(over.await, "nothing is known of the end of {id}; it is {:?}", self.workload(id).await);
        found.into_inner().unwrap().unwrap()
    }
}

/// Seconds that no other test sleeps for.
fn unique(number: u32) -> u32 {
    7_000_000 + std::process::id() * 10 + number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end_and_is_tried_again_as_often_as_it_may() {
    let mut world = World::start(json!({})).await;
    let good = world.kept("good", "echo result: 42", r#"{"job":{"retries":5}}"#).await;
    let good = world.deploy(&good).await;
    let bad = world.kept("bad", "echo tried\necho why >&2\nexit 9", r#"{"job":{"retries":2}}"#).await;
    let bad = world.deploy(&bad).await;
    let once = world.kept("once", "kill -SEGV $$", r#"{"job":{}}"#).await;
    let once = world.deploy(&once).await;
    let ended = world.ended(&good.id).await;
    assert_eq!((ended.exit.code, ended.exit.cause, ended.restarts, ended.is_job), (0, ExitCause::Exit, 0, true));
    assert_eq!(ended.tail.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["result: 42"]);
    let ended = world.ended(&once.id).await;
    assert_eq!((ended.exit.code, ended.exit.cause, ended.restarts), (-1, ExitCause::Signal, 0));
    let ended = world.ended(&bad.id).await;
    assert_eq!((ended.exit.code, ended.restarts, ended.last_line.as_deref()), (9, 2, Some("why")));
    assert_eq!(world.logs().iter().filter(|(_, line)| line.text == "tried").count(), 3);
    assert_eq!(world.events_of("workload_undeployed", &bad.id).len(), 1);
    world.stop().await;
    // What became of them is on disk.
    world.start_node().await;
    let ended = world.ended(&bad.id).await;
    assert_eq!((ended.exit.code, ended.restarts, ended.last_line.as_deref(), ended.is_job), (9, 2, Some("why"), true));
    assert_eq!(world.ended(&good.id).await.tail[0].text, "result: 42");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ignores_its_deadline_is_killed_with_all_that_it_started() {
    let mut world = World::start(json!({})).await;
    let deadline = if machines::in_machines() { 10_000 } else { 1_500 };
    let policy = json!({"stop_grace_ms": 200, "job": {"retries": 3, "deadline_ms": deadline}}).to_string();
    let script = format!("trap '' INT TERM HUP\nsetsid sleep {} &\necho began\nwhile :; do sleep 0.05; done", unique(1));
    let stubborn = world.kept("stubborn", &script, &policy).await;
    let stubborn = world.deploy(&stubborn).await;
    // One that fails until its time is over, in whatever pause it is then.
    let policy = json!({"job": {"retries": 100, "deadline_ms": deadline}}).to_string();
    let failing = world.kept("failing", "exit 1", &policy).await;
    let failing = world.deploy(&failing).await;
    for job in [&stubborn, &failing] {
        let ended = world.ended(&job.id).await;
        assert_eq!(ended.exit.cause, ExitCause::Deadline, "{ended:?}");
        assert_eq!(world.events_of("workload_undeployed", &job.id)[0].data["cause"], "deadline");
    }
    assert_eq!(world.logs().iter().filter(|(_, line)| line.text == "began").count(), 1, "it is not tried again");
    let line = format!("sleep\0{}\0", unique(1));
    assert!(!processes().iter().any(|(_, it)| it.ends_with(&line)), "what it started is left");
    world.stop().await;
}

/// Its exit while no node ran is heard; one whose agent died with the node has used up a try.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_its_node_is_away_and_no_try_is_forgotten() {
    if machines::in_machines() {
        skip!(
            "a_job_goes_on_while_its_node_is_away_and_no_try_is_forgotten",
            "it looks at the process of a workload, which is inside; machines that are taken over have tests of their own"
        );
    }
    let (mut world, doomed) = World::crashing().await;
    let job = |number: u32| format!("sleep {}\nexit 4", unique(number));
    let ends = world.kept("ends", &job(2), r#"{"job":{}}"#).await;
    let ends = world.start_on_doomed(&doomed, &ends).await;
    let lost = world.kept("lost", &job(3), r#"{"job":{}}"#).await;
    world.until("the pool is filled again", |it| it.warm_agents().len() == 1).await;
    let agent = *world.warm_agents().values().next().unwrap();
    let lost = world.start_on_doomed(&doomed, &lost).await;
    let (first, _) = (sleeping(unique(2)).await, sleeping(unique(3)).await);
    doomed.crash();
    kill9(first);
    kill9(agent);
    world.start_node().await;
    let ended = world.ended(&ends.id).await;
    assert_eq!((ended.exit.code, ended.exit.cause), (4, ExitCause::Exit));
    let ended = world.ended(&lost.id).await;
    assert_eq!((ended.exit.code, ended.exit.cause), (-1, ExitCause::Lost), "it is not run a second time");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_eats_its_memory_is_told_to_have_done_so_with_the_numbers() {
    let name = "who_eats_its_memory_is_told_to_have_done_so_with_the_numbers";
    if machines::in_machines() {
        skip!(name, "the host does not count a guest's memory");
    }
    let mut world = World::start(json!({"workload_limits": {"memory_mib": 16, "max_memory_mib": 64}})).await;
    let tags = world.ask("$NEX.PING", "").await["data"]["tags"].clone();
    let lacks = |tag: &str| tags[tag].as_str().is_some_and(|parts| parts.contains("cgroup"));
    if lacks("nex.sandbox.missing") || lacks("nex.sandbox.waived") {
        skip!(name, "no cgroup counts memory here");
    }
    for script in ["exec tail /dev/zero", "tail /dev/zero"] {
        let greedy = world.kept("greedy", script, r#"{"job":{}}"#).await;
        let greedy = world.deploy(&greedy).await;
        let ended = world.ended(&greedy.id).await;
        assert_eq!(ended.exit.cause, ExitCause::OutOfMemory, "{script}: {ended:?}");
        let told = world.events_of("workload_undeployed", &greedy.id);
        let text = told[0].data["message"].as_str().unwrap();
        assert!(told[0].data["cause"] == "out_of_memory" && text.contains("out of memory: it may have 64 MiB"), "{text}");
        assert!(ended.last_line.is_some_and(|line| line.starts_with("out of memory")), "{:?}", ended.tail);
    }
    world.stop().await;
}

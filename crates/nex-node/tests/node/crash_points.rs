//! A node that is killed between any two steps of what it does: its start, deploys, an end and a start again, stops. Whoever asked it for
//! something gets what he asked for from the next process, once, and nothing is left behind.
//!
//! Each run kills at one point of those that a run without a kill has passed: at one time each, picked at random; with
//! `NEX_CRASHES=all` at every time each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::{pending, ready};
use std::sync::Mutex;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use nex_bus::settings::ConnectionSettings;
use nex_client::deploy::{DeployError, Deployment, Target};
use nex_client::request::RequestError;
use nex_process::crash_point::Plan;
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_testkit::{NatsServer, eventually, guest, machines, skip};
use rand::seq::IndexedRandom as _;
use serde_json::json;

use crate::adoption::sleeping;
use crate::crash::is_back;
use crate::world::{World, kill9, processes, timeout};

/// Runs at the same time.
const MAX_CONCURRENT: usize = 3;

/// What was asked for, in its order.
struct Day {
    function: DeployResponse,
    service: DeployResponse,
    stopped: DeployResponse,
    ended: DeployResponse,
}

/// Numbers of seconds that no other test sleeps for, nor another run: by them the processes of its services are found.
fn seconds(run: u32) -> (u32, u32) {
    let first = 100_000_000 + (std::process::id() % 10_000) * 10_000 + run * 2;
    (first, first + 1)
}

/// How many sleep for so long, and who.
fn sleepers(seconds: u32) -> BTreeSet<i32> {
    let line = format!("sleep\0{seconds}\0");
    processes().into_iter().filter(|(_, it)| it.ends_with(&line)).map(|(pid, _)| pid).collect()
}

impl World {
    /// The node, once any process of it answers.
    async fn coming_target(&self) -> Target {
        let found = Mutex::new(None);
        let is_up = eventually(timeout(), async || {
            // One that begins to listen, or was just killed, may not answer.
            let nodes = self.client.nodes(Duration::from_millis(200)).await.unwrap_or_default();
            nodes.into_iter().next().map(|node| *found.lock().unwrap() = Some(node)).is_some()
        });
        assert!(is_up.await, "no process of the node answers");
        let summary = found.into_inner().unwrap().unwrap();
        Target::new(summary.node_id.parse().unwrap(), summary.target_xkey, &summary.xkey_signature).unwrap()
    }

    /// Deploys once, by a request that is sent again as long as nobody answers it.
    async fn deploy_through(&self, deployment: &Deployment, target: &Target) -> DeployResponse {
        let client = self.client.clone().with_deploy_timeout(timeout());
        loop {
            match Box::pin(client.deploy(deployment, target, &self.keys)).await {
                Ok(deployed) => return deployed,
                // Nobody has it: the next process is not there yet.
                Err(DeployError::Request(RequestError::NotThere { .. })) => drop(self.coming_target().await),
                Err(error) => panic!("{} is not deployed: {error}", deployment.name),
            }
        }
    }

    /// Stops a workload; a process that was killed meanwhile may have done it.
    async fn stop_through(&self, started: &DeployResponse, target: &Target) {
        let client = self.client.clone().with_deploy_timeout(timeout() / 4);
        let (id, name) = (started.id.parse().unwrap(), started.name.parse().unwrap());
        let stopped = eventually(timeout(), async || {
            client.stop(&target.node, &id, &name, &self.keys.issuer).await.is_ok()
                || !self.events_of("workload_undeployed", &started.id).is_empty()
        });
        assert!(stopped.await, "{} is not stopped", started.name);
    }

    /// What is asked of the node.
    async fn day(&self, run: u32) -> Day {
        let (kept, stopped) = seconds(run);
        let script = |seconds: u32| format!("#!/bin/sh\nexec sleep {seconds}\n").into_bytes();
        let function = self.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
        let service = self.prepare("service", WorkloadType::Native, &script(kept)).await;
        let service = Deployment { essential: true, ..service };
        let stopped = self.prepare("stopped", WorkloadType::Native, &script(stopped)).await;
        let ended = self.prepare("ended", WorkloadType::Native, b"#!/bin/sh\nsleep 0.3\nexit 3\n").await;

        let target = self.coming_target().await;
        let function = self.deploy_through(&function, &target).await;
        let service = self.deploy_through(&service, &target).await;
        let first = sleeping(kept).await;
        // It is started again: it is essential.
        kill9(first);
        let again = async || sleepers(kept).iter().any(|pid| *pid != first);
        assert!(eventually(timeout(), again).await, "the service is not started again");
        let stopped = self.deploy_through(&stopped, &target).await;
        let ended = self.deploy_through(&ended, &target).await;
        self.stop_through(&stopped, &target).await;
        self.until("the end is told", |it| !it.events_of("workload_undeployed", &ended.id).is_empty()).await;
        Day { function, service, stopped, ended }
    }
}

/// One day of a node, whose first process has a plan and is followed by another when it dies. Says whether it did.
async fn run(run: u32, plan: &Plan) -> bool {
    let nats = NatsServer::start().await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let mut world = World::without_node(nats, connection, json!({})).await;
    let mut process = world.spawn_doomed_at(Some(plan));
    let mut was_killed = false;
    let day = {
        let next_process = async {
            assert!(eventually(Duration::from_secs(600), || ready(process.try_wait().unwrap().is_some())).await);
            was_killed = true;
            process = world.spawn_doomed();
            pending::<Day>().await
        };
        tokio::select! {
            day = world.day(run) => day,
            day = next_process => day,
        }
    };
    process.kill().unwrap();
    process.wait().unwrap();

    world.start_node().await;
    for started in [&day.function, &day.service] {
        is_back(&world, started).await;
    }
    assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"");
    let (kept, stopped) = seconds(run);
    assert_eq!((sleepers(kept).len(), sleepers(stopped).len()), (1, 0), "{plan}: services that run");
    let running = world.client.workloads(None, Duration::from_secs(2)).await.unwrap();
    let running: Vec<_> = running.into_iter().map(|it| it.workload.id).collect();
    let expected = [&day.function, &day.service].map(|it| it.id.clone());
    assert_eq!(BTreeSet::from_iter(&running), BTreeSet::from_iter(&expected), "{plan}: workloads");
    world.stop().await;
    for started in [&day.function, &day.service, &day.stopped, &day.ended] {
        world.until("its end is told", |it| !it.events_of("workload_undeployed", &started.id).is_empty()).await;
        let told = ["workload_deployed", "workload_undeployed"].map(|kind| {
            let events = world.events_of(kind, &started.id);
            events.into_iter().map(|event| event.id).collect::<BTreeSet<_>>().len()
        });
        assert_eq!(told, [1, 1], "{plan}: events of {}", started.name);
    }
    was_killed
}

/// How often each point was passed.
fn passed(trace: &str) -> BTreeMap<String, u32> {
    let mut passed = BTreeMap::new();
    for step in trace.lines() {
        *passed.entry(step.to_owned()).or_default() += 1;
    }
    passed
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "how long it may take is for whoever runs it to say")]
async fn a_node_that_is_killed_between_any_two_steps_loses_nothing_does_nothing_twice_and_leaves_nothing() {
    if machines::in_machines() {
        skip!("a_node_that_is_killed_between_any_two_steps_…", "machines have a test of their own, of the steps of their start");
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    assert!(!Box::pin(run(0, &Plan::Trace(trace.clone()))).await, "nobody killed it");
    let passed = passed(&fs::read_to_string(&trace).unwrap());
    assert!(passed.len() >= 20, "{passed:?}");
    let all = std::env::var("NEX_CRASHES").is_ok_and(|it| it == "all");
    let mut plans = Vec::new();
    for (step, times) in &passed {
        let times: Vec<u32> = (1..=*times).collect();
        let picked = times.choose(&mut rand::rng()).copied();
        plans.extend(
            times.into_iter().filter(|nth| all || Some(*nth) == picked).map(|nth| Plan::Kill { step: step.clone(), nth }),
        );
    }
    let runs = (1..).zip(&plans).map(|(number, plan)| async move {
        println!("killed at {plan}");
        u32::from(Box::pin(run(number, plan)).await)
    });
    let killed: u32 = stream::iter(runs).buffer_unordered(MAX_CONCURRENT).collect::<Vec<_>>().await.into_iter().sum();
    println!("killed at {killed} of {} points", plans.len());
    // Of some steps there are more in one run than in another.
    assert!(usize::try_from(killed).unwrap() * 10 >= plans.len() * 8, "{killed} of {}", plans.len());
}

//! A node that is killed, and its machines, which run on: the next process takes them over, with their guests, networks and workloads.

use std::collections::BTreeMap;

use nex_process::ProcessId;
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_testkit::{eventually, guest, machines, skip};

use crate::crash::is_back;
use crate::world::{World, kill9, timeout};

const WHY: &str = "this node has no machines";
const TICKING: &[u8] = b"#!/bin/sh\necho began\nn=0\nwhile sleep 0.2; do n=$((n+1)); echo tick $n; done\n";

fn ticks(world: &World) -> Vec<u32> {
    world.logs().iter().filter_map(|(_, line)| line.text.strip_prefix("tick ")?.parse().ok()).collect()
}

impl World {
    /// The machines of workloads: all agents but the warm ones, which there are in the end.
    async fn machines_of_workloads(&self, count: usize) -> BTreeMap<String, i32> {
        self.until("the pool is filled again", |it| it.warm_agents().len() == 1 && it.agents().len() == count + 1).await;
        let warm = self.warm_agents();
        self.agents().into_iter().filter(|(id, _)| !warm.contains_key(id)).collect()
    }

    async fn has_restarted(&self, started: &DeployResponse) {
        let again = eventually(timeout(), async || {
            self.workload(&started.id).await.is_some_and(|it| it.state == "running" && it.restarts == 1)
        });
        assert!(again.await, "{:?}", self.workload(&started.id).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_taken_over_after_every_crash_with_their_workloads_and_their_lines() {
    if !machines::in_machines() {
        skip!("machines_are_taken_over_after_every_crash_with_their_workloads_and_their_lines", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let service = world.prepare("service", WorkloadType::Native, TICKING).await;
    let service = world.start_on_doomed(&doomed, &service).await;
    let function = world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let function = world.start_on_doomed(&doomed, &function).await;
    world.until("the service began", |it| it.has_logged("began")).await;
    let (kept, bus) = (world.machines_of_workloads(2).await, world.bus_pid());
    let warm = ProcessId::of(*world.warm_agents().values().next().unwrap()).unwrap();
    doomed.crash();
    let doomed = world.start_doomed().await;
    for started in [&service, &function] {
        is_back(&world, started).await;
    }
    assert!(!warm.is_alive(), "a warm machine is left");
    assert_eq!(world.machines_of_workloads(2).await, kept);
    doomed.crash();
    let seen = ticks(&world).len();
    world.start_node().await;
    for started in [&service, &function] {
        is_back(&world, started).await;
        assert_eq!(world.summary(started).await.restarts, 0);
    }
    assert_eq!((world.machines_of_workloads(2).await, world.bus_pid()), (kept.clone(), bus));
    assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"");
    world.until("its lines arrive again", |it| ticks(it).len() > seen + 5).await;
    let told = ticks(&world);
    assert_eq!(told, Vec::from_iter(1..=u32::try_from(told.len()).unwrap()), "lines are missing, or come twice");
    assert_eq!(world.logs().iter().filter(|(_, line)| line.text == "began").count(), 1, "it was not started again");

    world.stop_workload(&service).await;
    world.until("its machine is removed", |it| it.agents().len() == 2).await;
    world.stop().await;
    let left: Vec<_> = kept.values().filter_map(|pid| ProcessId::of(*pid)).filter(|it| it.is_alive()).collect();
    assert!(left.is_empty(), "{left:?} run on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_while_no_node_runs_is_missed_and_one_that_nobody_knows_is_ended() {
    if !machines::in_machines() {
        skip!("a_machine_that_dies_while_no_node_runs_is_missed_and_one_that_nobody_knows_is_ended", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let dies = world.prepare("dies", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let dies = world.start_on_doomed(&doomed, &dies).await;
    let first = world.machines_of_workloads(1).await;
    let unknown = world.prepare("unknown", WorkloadType::Native, TICKING).await;
    let unknown = world.start_on_doomed(&doomed, &unknown).await;
    let both = world.machines_of_workloads(2).await;
    let of_unknown = *both.iter().find(|(id, _)| !first.contains_key(*id)).unwrap().1;
    let of_unknown = ProcessId::of(of_unknown).unwrap();
    doomed.crash();
    first.values().for_each(|pid| kill9(*pid));
    {
        let journal = world.left_journal().await;
        journal.remove_workload(unknown.id.parse().unwrap()).await.unwrap();
    }
    world.start_node().await;
    is_back(&world, &dies).await;
    assert_eq!(world.call_again("dies", "you").await, "\"Hello, you!\"");
    assert!(world.workload(&unknown.id).await.is_none());
    assert!(!of_unknown.is_alive(), "nobody knows it, and it runs");
    assert!(both.keys().all(|id| !world.agents().contains_key(id)), "directories are left");
    world.stop().await;
}

/// As an operator's `kill` of a monitor that an earlier process started.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_taken_over_and_dies_is_replaced() {
    if !machines::in_machines() {
        skip!("a_machine_that_was_taken_over_and_dies_is_replaced", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let function = world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let function = world.start_on_doomed(&doomed, &function).await;
    let kept = world.machines_of_workloads(1).await;
    doomed.crash();
    world.start_node().await;
    is_back(&world, &function).await;
    assert_eq!(world.machines_of_workloads(1).await, kept);
    kept.values().for_each(|pid| kill9(*pid));
    world.has_restarted(&function).await;
    assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"");
    assert!(kept.keys().all(|id| !world.agents().contains_key(id)), "its sandbox is left");
    world.stop().await;
}

//! A node that is killed, and what runs on: agents in jailed processes and the internal bus wait for the next process, which takes them
//! over. Machines are in `adoption_machines.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nex_bus::settings::ConnectionSettings;
use nex_client::Client;
use nex_client::deploy::Deployment;
use nex_node::journal::TokenId;
use nex_process::ProcessId;
use nex_protocol::claims::Claims;
use nex_protocol::control::WorkloadSummary;
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_testkit::{NatsOptions, NatsServer, eventually, guest, machines, skip};
use tokio::task::JoinSet;

use crate::crash::{Doomed, is_back};
use crate::world::{World, kill9, processes, timeout};

const GREET: &[u8] = guest::GREET_MJS.as_bytes();
const WHY: &str = "it looks at the processes of workloads, which are inside; machines have tests of their own";

impl World {
    pub(crate) async fn start_on_doomed(&self, doomed: &Doomed, deployment: &Deployment) -> DeployResponse {
        Box::pin(self.client.deploy(deployment, &doomed.target, &self.keys)).await.unwrap()
    }

    pub(crate) async fn summary(&self, started: &DeployResponse) -> WorkloadSummary {
        self.workload(&started.id).await.unwrap_or_else(|| panic!("{} is gone", started.name))
    }

    /// A service that sleeps for so many seconds, by which its process is found.
    async fn sleeper(&self, name: &str, seconds: u32) -> Deployment {
        let script = format!("#!/bin/sh\necho began\nexec sleep {seconds}\n");
        self.prepare(name, WorkloadType::Native, script.as_bytes()).await
    }
}

/// The process that sleeps for so long.
pub(crate) async fn sleeping(seconds: u32) -> i32 {
    let line = format!("sleep\0{seconds}\0");
    let find = || processes().into_iter().find(|(_, it)| it.ends_with(&line)).map(|(pid, _)| pid);
    assert!(eventually(timeout(), async || find().is_some()).await, "nobody sleeps for {seconds} s");
    find().unwrap()
}

/// A number of seconds that no other test sleeps for.
fn unique(number: u32) -> u32 {
    1_000_000 + std::process::id() * 10 + number
}

/// Calls a function without a pause, until it is told to stop.
struct Caller {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    calling: JoinSet<Vec<String>>,
}

impl Caller {
    fn start(client: &Client, subject: &'static str) -> Self {
        let (stop, answered, client) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), client.clone());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answered));
        let mut calling = JoinSet::new();
        calling.spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                match client.call(subject, "you".into(), Duration::from_secs(5)).await {
                    Ok(reply) if reply.as_ref() == b"\"Hello, you!\"" => drop(counted.fetch_add(1, Ordering::AcqRel)),
                    other => failures.push(format!("{other:?}")),
                }
            }
            failures
        });
        Self { stop, answered, calling }
    }

    async fn answers(&self, more: u64) {
        let goal = self.answered.load(Ordering::Acquire) + more;
        assert!(eventually(timeout(), async || self.answered.load(Ordering::Acquire) >= goal).await, "calls are not answered");
    }

    async fn failures(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.calling.join_next().await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_keeps_its_process_and_no_call_fails_while_the_node_is_killed_and_comes_back() {
    if machines::in_machines() {
        skip!("a_service_keeps_its_process_and_no_call_fails_while_the_node_is_killed_and_comes_back", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let ticking = b"#!/bin/sh\necho began\nn=0\nwhile sleep 0.1; do n=$((n+1)); echo tick $n; done\n";
    let service = world.prepare("service", WorkloadType::Native, ticking).await;
    let service = world.start_on_doomed(&doomed, &service).await;
    let function = world.prepare("greet", WorkloadType::V8, GREET).await;
    let function = world.start_on_doomed(&doomed, &function).await;
    world.until("the service began", |it| it.has_logged("began")).await;
    world.until("the pool is filled again", |it| it.warm_agents().len() == 1 && it.agents().len() == 3).await;
    let (warm, all, bus) = (world.warm_agents(), world.agents(), world.bus_pid());
    let warm_leader = ProcessId::of(*warm.values().next().unwrap()).unwrap();
    let caller = Caller::start(&world.client, "greet");
    caller.answers(50).await;
    let before = world.summary(&service).await;

    let ticks = |it: &World| -> Vec<u32> {
        it.logs().iter().filter_map(|(_, line)| line.text.strip_prefix("tick ")?.parse().ok()).collect()
    };
    let first = ticks(&world).len();
    world.until("a line arrives", |it| ticks(it).len() > first).await;
    // Between two lines: one that the node has taken and not told yet dies with it.
    doomed.crash();
    caller.answers(200).await;
    let seen = ticks(&world).len();
    world.start_node().await;
    for started in [&service, &function] {
        is_back(&world, started).await;
        assert_eq!(world.summary(started).await.restarts, 0);
    }
    caller.answers(200).await;
    assert_eq!(caller.failures().await, Vec::<String>::new(), "calls failed");
    assert_eq!(world.bus_pid(), bus, "it is the same bus");
    let kept: Vec<_> = all.iter().filter(|(id, _)| !warm.contains_key(*id)).collect();
    let now = world.agents();
    assert!(kept.iter().all(|(id, leader)| now.get(*id) == Some(*leader)), "{kept:?} are not all in {now:?}");
    assert!(!warm_leader.is_alive() && warm.keys().all(|id| !now.contains_key(id)), "a warm agent is left");
    world.until("its lines arrive again", |it| ticks(it).len() > seen + 5).await;
    let told = ticks(&world);
    let all: Vec<u32> = (1..=u32::try_from(told.len()).unwrap()).collect();
    assert_eq!(told, all, "lines that were written while no node ran are missing, or come twice");
    assert_eq!(world.logs().iter().filter(|(_, line)| line.text == "began").count(), 1, "it was not started again");
    let workload = world.node().registry().get(&function.id).unwrap();
    let counted = &workload.counters.all()[0].succeeded;
    world.until("calls that nobody counted meanwhile are", |_| counted.load(Ordering::Relaxed) >= 400).await;
    let after = world.summary(&service).await;
    assert_eq!((&before.issuer, before.name), (&after.issuer, after.name));
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["running_machines"], 2);

    world.stop_workload(&service).await;
    let (service_agents, left) = (world.agents().len(), world.state().join("agents"));
    world.until("its sandbox is removed", |it| it.agents().len() <= 2).await;
    assert!(service_agents <= 3 && left.is_dir());
    world.stop().await;
    for started in [&service, &function] {
        // Whoever takes over may tell it again, under the same id.
        let told: BTreeSet<String> = world.events_of("workload_deployed", &started.id).into_iter().map(|it| it.id).collect();
        assert_eq!(told.len(), 1, "{}", started.name);
        world.until("its end is told", |it| it.events_of("workload_undeployed", &started.id).len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_no_node_runs_is_told_once_and_what_is_essential_is_started_again() {
    if machines::in_machines() {
        skip!("an_exit_while_no_node_runs_is_told_once_and_what_is_essential_is_started_again", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let plain = world.sleeper("plain", unique(1)).await;
    let plain = world.start_on_doomed(&doomed, &plain).await;
    let essential = Deployment { essential: true, ..world.sleeper("essential", unique(2)).await };
    let essential = world.start_on_doomed(&doomed, &essential).await;
    let (first, second) = (sleeping(unique(1)).await, sleeping(unique(2)).await);
    doomed.crash();
    kill9(first);
    kill9(second);
    world.start_node().await;
    world.until("its end is told", |it| !it.events_of("workload_undeployed", &plain.id).is_empty()).await;
    let again = eventually(timeout(), async || {
        world.workload(&essential.id).await.is_some_and(|it| it.state == "running" && it.restarts == 1)
    });
    assert!(again.await, "{:?}", world.workload(&essential.id).await);
    assert_ne!(sleeping(unique(2)).await, second);
    assert!(world.workload(&plain.id).await.is_none());
    world.stop().await;
    world.start_node().await;
    world.stop().await;
    world.until("its end is told", |it| !it.events_of("workload_undeployed", &essential.id).is_empty()).await;
    for started in [&plain, &essential] {
        let told = world.events_of("workload_undeployed", &started.id);
        assert_eq!(told.len(), 1, "{}: {told:?}", started.name);
    }
    let told = &world.events_of("workload_undeployed", &plain.id)[0];
    assert!(told.data["code"] == -1 && told.data["message"].as_str().unwrap().contains("SIGKILL"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_the_journal_does_not_know_is_ended() {
    if machines::in_machines() {
        skip!("an_instance_that_the_journal_does_not_know_is_ended", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let known = world.sleeper("known", unique(3)).await;
    let known = world.start_on_doomed(&doomed, &known).await;
    let forgotten = world.sleeper("forgotten", unique(4)).await;
    let forgotten = world.start_on_doomed(&doomed, &forgotten).await;
    let (stays, goes) = (sleeping(unique(3)).await, ProcessId::of(sleeping(unique(4)).await).unwrap());
    doomed.crash();
    {
        let journal = world.left_journal().await;
        journal.remove_workload(forgotten.id.parse().unwrap()).await.unwrap();
    }
    world.start_node().await;
    is_back(&world, &known).await;
    assert!(!goes.is_alive(), "nobody knows it, and it runs");
    assert_eq!(sleeping(unique(3)).await, stays);
    assert!(world.workload(&forgotten.id).await.is_none());
    world.stop().await;
}

/// An upgrade: the agents are those of an older node, and speak the same protocol.
#[tokio::test(flavor = "multi_thread")]
async fn agents_of_another_version_run_on_and_those_of_another_protocol_do_not() {
    if machines::in_machines() {
        skip!("agents_of_another_version_run_on_and_those_of_another_protocol_do_not", WHY);
    }
    let (mut world, doomed) = World::crashing().await;
    let services = [unique(6), unique(7)];
    let older = world.sleeper("older", services[0]).await;
    let older = world.start_on_doomed(&doomed, &older).await;
    let strange = world.sleeper("strange", services[1]).await;
    let strange = world.start_on_doomed(&doomed, &strange).await;
    let (stays, goes) = (sleeping(services[0]).await, ProcessId::of(sleeping(services[1]).await).unwrap());
    doomed.crash();
    {
        let journal = world.left_journal().await;
        for (id, mut record) in journal.workloads().unwrap() {
            let handshake = &mut record.running.as_mut().unwrap().agent.handshake;
            if id.as_str() == older.id {
                handshake.version = "0.0.1".into();
            } else {
                handshake.protocol += 1;
            }
            let claims = Claims::decode(record.request.workload_jwt.as_ref().unwrap()).unwrap();
            journal.put_workload(id, record, TokenId::from(&claims), None).await.unwrap();
        }
    }
    world.start_node().await;
    for started in [&older, &strange] {
        is_back(&world, started).await;
    }
    assert_eq!(sleeping(services[0]).await, stays);
    assert!(!goes.is_alive(), "it cannot be spoken to, and runs");
    sleeping(services[1]).await;
    world.stop().await;
}

/// The bus may die with the node, or between two of its processes: it comes back where its agents look for it.
#[tokio::test(flavor = "multi_thread")]
async fn agents_are_taken_over_after_every_crash_though_their_bus_died_as_well() {
    if machines::in_machines() {
        skip!("agents_are_taken_over_after_every_crash_though_their_bus_died_as_well", WHY);
    }
    let (mut world, mut doomed) = World::crashing().await;
    let service = world.sleeper("service", unique(5)).await;
    let service = world.start_on_doomed(&doomed, &service).await;
    let process = sleeping(unique(5)).await;
    for kill_bus in [true, false, true] {
        doomed.crash();
        if kill_bus {
            kill9(world.bus_pid().unwrap());
        }
        doomed = world.start_doomed().await;
        is_back(&world, &service).await;
        assert_eq!((sleeping(unique(5)).await, world.summary(&service).await.restarts), (process, 0));
    }
    doomed.crash();
    world.start_node().await;
    is_back(&world, &service).await;
    assert_eq!(sleeping(unique(5)).await, process);
    world.stop_workload(&service).await;
    world.stop().await;
}

/// The node's own credentials never leave it: without a node nobody serves these triggers; with the next one, the same instance does.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_whose_calls_the_node_relays_is_served_again_by_its_agent() {
    if machines::in_machines() {
        skip!("a_function_whose_calls_the_node_relays_is_served_again_by_its_agent", WHY);
    }
    let users = "authorization { user: me, password: secret }\n";
    let nats = NatsServer::start_with(NatsOptions { config: users.into(), ..NatsOptions::default() }).await;
    let connection = ConnectionSettings {
        user: Some("me".into()),
        password: Some("secret".into()),
        ..ConnectionSettings::to_servers(&nats.url())
    };
    let (mut world, doomed) = World::crashing_on(nats, connection).await;
    let greet = world.prepare("greet", WorkloadType::V8, GREET).await;
    world.until("the pool is filled", |it| it.warm_agents().len() == 1).await;
    let (agent, leader) = world.warm_agents().pop_first().unwrap();
    let started = world.start_on_doomed(&doomed, &greet).await;
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"");
    doomed.crash();
    world.start_node().await;
    is_back(&world, &started).await;
    assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"");
    assert_eq!(world.agents().get(&agent), Some(&leader));
    world.stop().await;
}

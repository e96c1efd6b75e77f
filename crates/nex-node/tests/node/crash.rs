//! A node that is killed: the next one on the same state has its workloads, whatever became of their agents. What runs on meanwhile is
//! in `adoption.rs`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nex_bus::settings::ConnectionSettings;
use nex_client::artifact::DEFAULT_BUCKET;
use nex_client::deploy::Target;
use nex_node::Node;
use nex_node::journal::{EndedRecord, Journal, OwedEvent, TokenId, WorkloadRecord};
use nex_process::ProcessId;
use nex_process::crash_point::{self, Plan};
use nex_protocol::claims::{Claims, sign};
use nex_protocol::control::EndedWorkload;
use nex_protocol::deploy::{DeployRequest, DeployResponse, Location, WorkloadType};
use nex_protocol::event::CloudEvent;
use nex_protocol::id::WorkloadId;
use nex_testkit::{NatsServer, eventually, guest};
use serde_json::{Value, json};

use crate::world::{World, kill9, options, timeout};

const CHILD: &str = "NEX_NODE_TEST_CHILD";

/// Not a test by itself: [`World::crashing`] runs it in a process of its own, which is killed.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "how the parent tells the child what to be")]
async fn a_node_in_a_process_of_its_own() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |name: &str| told[name].as_str().map(str::to_owned);
    let connection = ConnectionSettings {
        user: text("user"),
        password: text("password").map(Into::into),
        user_jwt: text("jwt").map(Into::into),
        user_seed: text("seed").map(Into::into),
        ..ConnectionSettings::to_servers(told["url"].as_str().unwrap())
    };
    text("crash").as_deref().and_then(Plan::parse).into_iter().for_each(crash_point::arm);
    let state = Path::new(told["state"].as_str().unwrap()).to_owned();
    let node = Box::pin(Node::start(options(connection, state, &told["config"]))).await.unwrap();
    node.warm().await.unwrap();
    std::future::pending::<()>().await;
}

pub(crate) struct Doomed {
    child: std::process::Child,
    pub(crate) target: Target,
}

impl World {
    /// A world whose node is another process.
    pub(crate) async fn crashing() -> (Self, Doomed) {
        let nats = NatsServer::start().await;
        let connection = ConnectionSettings::to_servers(&nats.url());
        Self::crashing_on(nats, connection).await
    }

    pub(crate) async fn crashing_on(nats: NatsServer, connection: ConnectionSettings) -> (Self, Doomed) {
        let world = Self::without_node(nats, connection, json!({})).await;
        let doomed = world.start_doomed().await;
        (world, doomed)
    }

    /// Starts the node in another process, and waits until it answers.
    pub(crate) async fn start_doomed(&self) -> Doomed {
        let child = self.spawn_doomed();
        let found = std::sync::Mutex::new(None);
        let up = eventually(timeout(), async || {
            // One that begins to listen may not answer yet.
            let nodes = self.client.nodes(Duration::from_millis(200)).await.unwrap_or_default();
            let ready = nodes.into_iter().find(|node| node.warm_agents == Some(1));
            ready.map(|node| *found.lock().unwrap() = Some(node)).is_some()
        });
        assert!(up.await, "the other process does not answer");
        let summary = found.into_inner().unwrap().unwrap();
        Doomed {
            child,
            target: Target::new(summary.node_id.parse().unwrap(), summary.target_xkey, &summary.xkey_signature).unwrap(),
        }
    }

    pub(crate) fn spawn_doomed(&self) -> std::process::Child {
        self.spawn_doomed_at(None)
    }

    /// Starts the node in another process, which is killed at a point of its own.
    #[expect(clippy::disallowed_methods, reason = "a process to kill")]
    pub(crate) fn spawn_doomed_at(&self, point: Option<&Plan>) -> std::process::Child {
        let exposed = |secret: &Option<nex_bus::settings::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let ConnectionSettings { user, password, user_jwt, user_seed, .. } = &self.connection;
        let told = json!({
            "url": self.nats.url(), "state": self.state(), "user": user, "password": exposed(password),
            "jwt": exposed(user_jwt), "seed": exposed(user_seed), "config": self.config, "crash": point.map(Plan::to_string),
        });
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::a_node_in_a_process_of_its_own", "--nocapture"])
            .env(CHILD, told.to_string())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Everything that runs for the node now: agents and the internal bus.
    pub(crate) fn everything(&self) -> Vec<ProcessId> {
        self.agents().into_values().chain(self.bus_pid()).filter_map(ProcessId::of).collect()
    }
}

impl Doomed {
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) async fn is_back(world: &World, started: &DeployResponse) {
    let back = eventually(timeout(), async || world.workload(&started.id).await.is_some_and(|it| it.state == "running"));
    assert!(back.await, "{} is not back", started.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_nothing_old_is_left_and_every_workload_runs_again_under_its_id_with_its_environment() {
    let (mut world, doomed) = World::crashing().await;
    let mut function = world.prepare("function", WorkloadType::V8, b"() => env.TOKEN").await;
    function.environment.insert("TOKEN".into(), "kept".into());
    let script = b"#!/bin/sh\necho \"token $TOKEN $1\"\nexec sleep 1000\n";
    let mut service = world.prepare("service", WorkloadType::Native, script).await;
    service.environment.insert("TOKEN".into(), "as well".into());
    service.argv = vec!["and argv".into()];
    let gone = world.prepare("gone", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    let keys = &world.keys;
    let function = world.client.deploy(&function, &doomed.target, keys).await.unwrap();
    let service = world.client.deploy(&service, &doomed.target, keys).await.unwrap();
    let gone = world.client.deploy(&gone, &doomed.target, keys).await.unwrap();
    let (id, name) = (gone.id.parse().unwrap(), gone.name.parse().unwrap());
    world.client.stop(&doomed.target.node, &id, &name, &keys.issuer).await.unwrap();
    assert_eq!(world.call("function", "").await, "\"kept\"");

    world.until("the pool is filled again", |it| !it.warm_agents().is_empty()).await;
    let (agents, left) = (world.agents(), world.everything());
    assert!(left.len() >= 4, "{left:?}");
    let node = doomed.target.node.clone();
    let warm = world.warm_agents();
    doomed.crash();
    // As when all of it is out of memory: nothing runs on but the warm agent, which the next process has no use for.
    let of_workloads = agents.iter().filter(|(id, _)| !warm.contains_key(*id));
    of_workloads.map(|(_, leader)| *leader).chain(world.bus_pid()).for_each(kill9);
    fs::write(world.state().join("artifacts/draft-0123456789abcdef"), "half a download").unwrap();
    world.start_node().await;
    assert_eq!(world.target().node, node, "it is the same node");
    let alive: Vec<_> = left.iter().filter(|process| process.is_alive()).collect();
    assert!(alive.is_empty(), "{alive:?} are left");
    assert!(agents.keys().all(|id| !world.agents().contains_key(id)), "directories are left");
    for started in [&function, &service] {
        is_back(&world, started).await;
    }
    assert_eq!(world.call_again("function", "").await, "\"kept\"");
    let told = |it: &World| it.logs().iter().filter(|(_, line)| line.text == "token as well and argv").count();
    world.until("the service began twice", |it| told(it) == 2).await;
    assert!(world.workload(&gone.id).await.is_none(), "what was stopped stays so");
    let drafts = fs::read_dir(world.state().join("artifacts")).unwrap().flatten();
    assert!(drafts.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with("draft-")), "a partial download is left");
    // Its issuer may still stop it.
    world.stop_workload(&service).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_back_after_a_crash_though_its_object_was_replaced_or_removed() {
    let (mut world, doomed) = World::crashing().await;
    let (target, keys) = (doomed.target.clone(), world.keys.clone());
    let mut started = Vec::new();
    for name in ["removed", "replaced"] {
        let deployment = world.prepare(name, WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
        started.push(world.client.deploy(&deployment, &target, &keys).await.unwrap());
    }
    let jetstream = async_nats::jetstream::new(world.client.nats().clone());
    jetstream.get_object_store(DEFAULT_BUCKET).await.unwrap().delete("removed").await.unwrap();
    world.upload("replaced", b"() => 'something else'").await;
    doomed.crash();
    world.start_node().await;
    for started in &started {
        is_back(&world, started).await;
        assert_eq!(world.call_again(&started.name, "you").await, "\"Hello, you!\"");
    }
    world.stop().await;
}

/// A request that deploys the function that greets.
fn greet_request(location: Location, token: String) -> DeployRequest {
    DeployRequest {
        r#type: Some("v8".into()),
        location: Some(location),
        workload_jwt: Some(token),
        trigger_subjects: Some(vec!["greet".into()]),
        ..DeployRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_asked_for_again_after_a_crash_is_answered_with_the_workload_that_lives() {
    let (mut world, doomed) = World::crashing().await;
    let artifact = world.upload("greet", guest::GREET_MJS.as_bytes()).await;
    let issuer = world.keys.issuer.clone();
    let claims = Claims::to_start("greet", &issuer, &artifact.digest, nex_node::clock::unix_seconds(), 300);
    let request = greet_request(artifact.location, sign(&claims, &issuer).unwrap());
    let (subject, body) = (format!("$NEX.DEPLOY.default.{}", doomed.target.node), serde_json::to_vec(&request).unwrap());
    let first = world.ask(&subject, body.clone()).await;
    doomed.crash();
    world.start_node().await;
    let again = world.ask(&subject, body.clone()).await;
    assert_eq!((&again["data"]["started"], &again), (&json!(true), &first));
    let started: DeployResponse = serde_json::from_value(first["data"].clone()).unwrap();
    is_back(&world, &started).await;
    world.stop_workload(&started).await;
    world.stop().await;
    world.start_node().await;
    let again = world.ask(&subject, body).await;
    assert!(again["error"].as_str().unwrap().contains("was used before"), "stopped, it is not started again: {again}");
    world.stop().await;
}

/// Restoring is not deploying: the token of a deploy may be long expired, and NATS away, however often the node is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_comes_back_after_every_one_of_many_crashes_though_its_token_expired_and_nats_was_away() {
    let (mut world, mut doomed) = World::crashing().await;
    let target = doomed.target.clone();
    let artifact = world.upload("greet", guest::GREET_MJS.as_bytes()).await;
    let (issuer, now) = (world.keys.issuer.clone(), nex_node::clock::unix_seconds());
    let claims = Claims::to_start("greet", &issuer, &artifact.digest, now, 3);
    let request = greet_request(artifact.location, sign(&claims, &issuer).unwrap());
    let body = serde_json::to_vec(&request).unwrap();
    let answer = world.ask(&format!("$NEX.DEPLOY.default.{}", target.node), body).await;
    let started: DeployResponse = serde_json::from_value(answer["data"].clone()).unwrap();
    let has_expired = async || nex_node::clock::unix_seconds() > now + 3;
    assert!(eventually(timeout(), has_expired).await);
    for crash in 1..=3 {
        doomed.crash();
        doomed = world.start_doomed().await;
        is_back(&world, &started).await;
        assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"", "after crash {crash}");
    }
    // NATS away at the start: the node waits for it, and the workload is back with it.
    doomed.crash();
    world.nats.kill9();
    let child = world.spawn_doomed();
    world.nats.restart().await;
    is_back(&world, &started).await;
    Doomed { child, target }.crash();
    world.start_node().await;
    is_back(&world, &started).await;
    world.stop_workload(&started).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stopped_in_order_starts_empty_and_its_state_has_one_node_only() {
    let mut world = World::start(json!({})).await;
    world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let second = Box::pin(Node::start(world.options())).await;
    assert!(second.unwrap_err().to_string().contains("another node runs on the state directory"));
    assert_eq!(world.call("greet", "you").await, "\"Hello, you!\"", "the first is not disturbed");
    let target = world.target();
    world.stop().await;
    world.start_node().await;
    assert_eq!(world.target(), target, "same id, same key");
    assert_eq!(world.ask("$NEX.PING", "").await["data"]["running_machines"], 0);
    world.stop().await;
}

impl World {
    /// The journal of a node that was killed. What that had just forked may hold it for a moment.
    pub(crate) async fn left_journal(&self) -> Journal {
        let opened = std::sync::Mutex::new(None);
        let open = async || {
            let journal = Journal::open(&self.state().join("journal.redb")).ok();
            journal.map(|journal| *opened.lock().unwrap() = Some(journal)).is_some()
        };
        assert!(eventually(timeout(), open).await, "the journal cannot be opened");
        opened.into_inner().unwrap().unwrap()
    }

    /// What the journal says now; nothing while it is being written.
    pub(crate) fn journal(&self) -> Option<Journal> {
        let copy = self.dir.path().join("journal.copy");
        fs::copy(self.state().join("journal.redb"), &copy).ok()?;
        Journal::open(&copy).ok()
    }
}

/// The end of a workload is owed to the world until the world has it, whoever is killed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_workload_is_told_by_the_next_process_if_its_own_was_killed_before() {
    let (mut world, doomed) = World::crashing().await;
    let service = world.prepare("service", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    let agent = *world.warm_agents().values().next().unwrap();
    let started = world.client.deploy(&service, &doomed.target, &world.keys).await.unwrap();
    world.nats.kill9();
    kill9(agent);
    let is_end = |owed: &(String, OwedEvent)| owed.1.event.r#type == "workload_undeployed";
    let is_owed = || std::future::ready(world.journal().is_some_and(|it| it.owed().is_ok_and(|owed| owed.iter().any(is_end))));
    assert!(eventually(timeout(), is_owed).await, "the journal does not have the end");
    doomed.crash();
    world.nats.restart().await;
    world.client.nats().flush().await.unwrap();
    let told = |world: &World| {
        let events = world.events("workload_undeployed").into_iter();
        events.filter(|it| it.data["workload_id"] == started.id.as_str()).map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(told(&world), Vec::<String>::new());
    world.start_node().await;
    world.until("it is told", |it| !told(it).is_empty()).await;
    assert!(world.workload(&started.id).await.is_none(), "what is over stays so");
    world.stop().await;
    assert_eq!(world.journal().unwrap().owed().unwrap(), [], "and is owed no more");
    world.start_node().await;
    world.stop().await;
    assert_eq!(told(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_told_once_under_its_id_and_an_end_that_was_told_is_not_owed() {
    let mut world = World::start(json!({})).await;
    let started = world.run("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    world.stop_workload(&started).await;
    world.stop().await;
    let event = CloudEvent::new("workload_undeployed", "node".into(), "2026-01-01T00:00:00Z".into(), json!({"workload_id": "x"}));
    let owed = OwedEvent { subject: "$NEX.events.default.workload_undeployed".into(), event: event.clone() };
    {
        let journal = world.left_journal().await;
        assert_eq!(journal.owed().unwrap(), []);
        let ended = EndedRecord { namespace: "default".parse().unwrap(), token: String::new(), told: EndedWorkload::default() };
        journal.end_workload(WorkloadId::new(1), owed, ended, true).await.unwrap();
    }
    for _ in 0..2 {
        world.start_node().await;
        world.stop().await;
        world.until("the node is heard to have stopped", |it| it.events("node_stopped").len() > 1).await;
    }
    let told: Vec<CloudEvent> = world.events("workload_undeployed").into_iter().filter(|it| it.id == event.id).collect();
    assert_eq!(told, [event]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_damaged_journal_starts_and_says_so() {
    let (mut world, doomed) = World::crashing().await;
    let service = world.prepare("service", WorkloadType::Native, b"#!/bin/sh\nexec sleep 1000\n").await;
    let started = world.client.deploy(&service, &doomed.target, &world.keys).await.unwrap();
    let left = world.everything();
    doomed.crash();
    let path = world.state().join("journal.redb");
    let nonsense = vec![0xa5; fs::read(&path).unwrap().len()];
    fs::write(&path, &nonsense).unwrap();
    world.start_node().await;
    world.until("it is said", |it| !it.events("journal_damaged").is_empty()).await;
    let told = &world.events("journal_damaged")[0].data;
    assert_eq!((&told["workloads"], fs::read(told["kept"].as_str().unwrap()).unwrap()), (&json!(0), nonsense));
    assert!(left.iter().all(|process| !process.is_alive()), "what nobody knows runs on");
    assert!(world.workload(&started.id).await.is_none());
    // A token that was signed in the second of the damage counts as used.
    let damaged = nex_node::clock::unix_seconds();
    assert!(eventually(timeout(), async || nex_node::clock::unix_seconds() > damaged).await);
    let again = world.deploy(&service).await;
    world.stop_workload(&again).await;
    world.stop().await;
}

/// Two namespaces with one trigger cannot come from one node's deploys; whatever brought them into its journal, one of them is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_workload_gets_no_trigger_that_another_namespace_has() {
    let (mut world, doomed) = World::crashing().await;
    let greet = world.prepare("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
    let started = world.client.deploy(&greet, &doomed.target, &world.keys).await.unwrap();
    doomed.crash();
    let other = WorkloadId::new(u32::MAX);
    {
        let journal = world.left_journal().await;
        let (_, record) = journal.workloads().unwrap().remove(0);
        let claims = Claims::decode(record.request.workload_jwt.as_ref().unwrap()).unwrap();
        let record = WorkloadRecord { namespace: "other".parse().unwrap(), ..record };
        journal.put_workload(other.clone(), record, TokenId::from(&claims), None).await.unwrap();
    }
    world.start_node().await;
    is_back(&world, &started).await;
    assert_eq!(world.call_again("greet", "you").await, "\"Hello, you!\"");
    assert!(world.node().registry().get(other.as_str()).is_none());
    world.stop().await;
    let left: Vec<WorkloadId> = world.journal().unwrap().workloads().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [other], "it stays in the journal");
}

//! What a node keeps of log lines and events: asked for over the control API, also after its workloads' ends and its own.

use std::collections::BTreeSet;

use nex_client::request::RequestError;
use nex_protocol::control::{HistoryEvent, HistoryLine, HistoryRequest};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::event::SYSTEM;
use nex_protocol::id::NodeId;
use nex_protocol::subject::{self, HistoryKind};
use nex_testkit::eventually;
use serde_json::json;

use crate::world::{World, timeout};

impl World {
    async fn lines(&self, node: &NodeId, request: &HistoryRequest) -> Vec<String> {
        let mut kept = self.client.kept::<HistoryLine>(std::slice::from_ref(node), &["default"], request).await;
        let lines = kept.rest().await;
        assert!(kept.missed.is_empty() && kept.damaged == 0, "{kept:?}");
        lines.into_iter().map(|(_, line)| line.text).collect()
    }

    async fn kinds(&self, node: &NodeId, namespace: &str, workload: Option<&str>) -> Vec<String> {
        let request = HistoryRequest { workload: workload.map(str::to_owned), ..HistoryRequest::default() };
        let mut kept = self.client.kept::<HistoryEvent>(std::slice::from_ref(node), &[namespace], &request).await;
        kept.rest().await.into_iter().map(|(_, it)| it.event.r#type).collect()
    }
}

fn of(workload: &str) -> HistoryRequest {
    HistoryRequest { workload: Some(workload.to_owned()), ..HistoryRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workloads_said_and_what_happened_is_told_after_their_end_and_by_the_next_node() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    let failing = world.kept("failing", "echo out; echo err >&2; exit 3", r#"{"restart":"on-failure"}"#).await;
    let failing = world.deploy(&failing).await;
    let again = eventually(timeout(), async || world.workload(&failing.id).await.is_some_and(|it| it.restarts >= 1));
    assert!(again.await);
    world.stop_workload(&failing).await;
    world.stop().await;
    world.start_node().await;
    assert_eq!(world.target().node, node);
    let kinds = world.kinds(&node, "default", Some(&failing.id)).await;
    assert_eq!(kinds[..3], ["workload_started", "workload_deployed", "workload_restarting"], "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("workload_undeployed"));
    assert_eq!(kinds.iter().filter(|kind| *kind == "workload_undeployed").count(), 1);
    let nodes = world.kinds(&node, SYSTEM, None).await;
    assert!(nodes.contains(&"node_started".to_owned()) && nodes.contains(&"node_stopped".to_owned()), "{nodes:?}");
    let lines = world.lines(&node, &of("FAILING")).await;
    assert!(lines[..2].contains(&"out".to_owned()) && lines[..2].contains(&"err".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("starting again in")), "{lines:?}");
    assert_eq!(world.lines(&node, &HistoryRequest { tail: Some(1), ..of(&failing.id) }).await, lines[lines.len() - 1..]);
    assert_eq!(world.lines(&node, &of("other")).await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_successor_tells_what_it_kept_and_nothing_is_told_twice() {
    let (mut world, doomed) = World::crashing().await;
    let node = doomed.target.node.clone();
    let script = "while :; do echo tick; sleep 0.1; done";
    let ticking = world.kept("ticking", script, "{}").await;
    let ticking = Box::pin(world.client.deploy(&ticking, &doomed.target, &world.keys)).await.unwrap();
    let said = eventually(timeout(), async || world.lines(&node, &of(&ticking.id)).await.len() > 3);
    assert!(said.await);
    let before = world.lines(&node, &of(&ticking.id)).await.len();
    doomed.crash();
    world.start_node().await;
    let more = eventually(timeout(), async || world.lines(&node, &of(&ticking.id)).await.len() > before + 3);
    assert!(more.await, "the next process goes on keeping");
    // All that came live has a number, and is kept under it once.
    world.stop_workload(&ticking).await;
    let live: Vec<u64> = world.logs().into_iter().filter_map(|(_, line)| line.seq).collect();
    let mut kept = world.client.kept::<HistoryLine>(std::slice::from_ref(&node), &["default"], &of(&ticking.id)).await;
    let kept: Vec<u64> = kept.rest().await.into_iter().map(|(_, line)| line.seq).collect();
    let unique: BTreeSet<u64> = kept.iter().copied().collect();
    assert!(kept.is_sorted() && unique.len() == kept.len(), "{kept:?}");
    // The last ones before the kill may not have reached the disk.
    let missing: Vec<u64> = live.iter().copied().filter(|seq| !unique.contains(seq)).collect();
    assert!(missing.len() <= 2, "{missing:?} of {live:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_told_its_own_and_nonsense_is_refused() {
    let mut world = World::start(json!({})).await;
    let node = world.target().node;
    let said = world.run("said", WorkloadType::Native, b"#!/bin/sh\necho secret\nexec sleep 1000\n").await;
    world.until("it said so", |it| it.has_logged("secret")).await;
    for namespace in ["other", "system", "defaul"] {
        let mut kept = world.client.kept::<HistoryLine>(std::slice::from_ref(&node), &[namespace], &of("said")).await;
        assert!(kept.rest().await.is_empty(), "{namespace}");
    }
    let subject = |kind| subject::history("default", &node, kind);
    for body in ["[]", "{", r#"{"after":-1}"#, r#"{"tail":"all"}"#, "\u{0}"] {
        let answer = world.ask(&subject(HistoryKind::Logs), body).await;
        assert_eq!(answer["code"], "bad_request", "{answer}");
    }
    let far =
        r#"{"after":18446744073709551615,"until":0,"tail":18446744073709551615,"since_ms":-9223372036854775808,"workload":"\n"}"#;
    for body in ["{}", far, r#"{"tail":0}"#, r#"{"unknown":1}"#] {
        let answer = world.ask(&subject(HistoryKind::Events), body).await;
        assert!(answer["error"].is_null() && answer["data"]["node_id"] == node.as_str(), "{answer}");
    }
    let denied = world.ask(&format!("$NEX.HISTORY.default.{node}.other"), "{}").await;
    assert_eq!(denied["code"], "bad_request");
    let nobody: NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
    let missed = world.client.kept::<HistoryLine>(std::slice::from_ref(&nobody), &["default"], &of("said")).await.missed;
    assert!(matches!(missed[..], [(_, RequestError::NotThere { .. })]), "{missed:?}");
    world.stop_workload(&said).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_namespace_takes_nothing_from_another_and_stays_within_bounds() {
    let mut world = World::start(json!({"history_mib": 1})).await;
    let node = world.target().node;
    let quiet = world.prepare("quiet", WorkloadType::Native, b"#!/bin/sh\necho precious\nexec sleep 1000\n").await;
    let flood = "#!/bin/sh\nhead -c 6000000 /dev/zero | tr '\\0' x | fold -w 2000\nwhile :; do echo over; sleep 0.2; done\n";
    let flood = world.prepare("flood", WorkloadType::Native, flood.as_bytes()).await;
    let quiet = world.deploy(&quiet).await;
    let loud = nex_client::Client::new(world.client.nats().clone(), "loud".parse().unwrap());
    Box::pin(loud.deploy(&flood, &world.target(), &world.keys)).await.unwrap();
    let over = HistoryRequest { tail: Some(1), ..HistoryRequest::default() };
    let ended = eventually(timeout(), async || {
        let mut kept = loud.kept::<HistoryLine>(std::slice::from_ref(&node), &["loud"], &over).await;
        kept.rest().await.iter().any(|(_, line)| line.text == "over")
    });
    assert!(ended.await);
    assert_eq!(world.lines(&node, &of(&quiet.id)).await, ["precious"]);
    assert_eq!(world.kinds(&node, "loud", None).await, ["workload_started", "workload_deployed"]);
    let size: u64 = std::fs::read_dir(world.state().join("history"))
        .unwrap()
        .flat_map(|ring| std::fs::read_dir(ring.unwrap().path()).unwrap())
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size > 512 * 1024 && size <= 1024 * 1024, "{size}");
    Box::pin(world.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_stops_no_workload_and_is_said() {
    let mut world = World::without_history_room().await;
    let node = world.target().node;
    let said = world.run("said", WorkloadType::Native, b"#!/bin/sh\necho first\nexec sleep 1000\n").await;
    world.until("it said so", |it| it.has_logged("first")).await;
    assert_eq!(world.lines(&node, &of("said")).await, Vec::<String>::new());
    let info = world.client.info(&node).await.unwrap();
    assert!(info.history.is_some_and(|history| history.lost > 0), "{info:?}");
    std::fs::remove_file(world.state().join("history")).unwrap();
    world.stop_workload(&said).await;
    let kinds = world.kinds(&node, "default", None).await;
    assert!(kinds.contains(&"workload_undeployed".to_owned()) && kinds.contains(&"history_lost".to_owned()), "{kinds:?}");
    world.stop().await;
}

impl World {
    /// A world whose node finds a file where its history is to be.
    async fn without_history_room() -> Self {
        let nats = nex_testkit::NatsServer::start().await;
        let connection = nex_bus::settings::ConnectionSettings::to_servers(&nats.url());
        let mut world = Self::without_node(nats, connection, json!({})).await;
        std::fs::create_dir_all(world.state()).unwrap();
        std::fs::write(world.state().join("history"), "in the way").unwrap();
        world.start_node().await;
        world
    }
}

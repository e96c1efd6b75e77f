//! Durable triggers under load, while agents, nodes and the NATS server are killed: every message is handled at least once, and what fails
//! is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::{consumer, stream};
use futures::StreamExt as _;
use nex_bus::settings::ConnectionSettings;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::{NatsOptions, NatsServer, eventually};
use serde_json::json;
use tempfile::TempDir;

use crate::crash::is_back;
use crate::durable::{durable, header, until};
use crate::world::{World, kill9, timeout};

const MESSAGES: usize = 600;

/// Every tenth one fails.
fn messages() -> impl Iterator<Item = String> {
    (0..MESSAGES).map(|number| if number % 10 == 0 { format!("bad {number}") } else { format!("order {number}") })
}

/// All are seen, and all that fail are kept.
async fn all_are_dealt_with(world: &World, seen: &crate::durable::Seen) {
    until("all were handled", || seen.different() == MESSAGES).await;
    the_bad_ones_are_kept(world).await;
}

async fn the_bad_ones_are_kept(world: &World) {
    let kept = eventually(timeout(), async || {
        let letters = world.dead_letters().await;
        let mut texts: Vec<_> = letters.iter().map(|letter| String::from_utf8(letter.payload.to_vec()).unwrap()).collect();
        texts.sort();
        texts.dedup();
        assert!(letters.iter().all(|letter| letter.payload.starts_with(b"bad") && !header(letter, "Nex-Dead-Reason").is_empty()));
        texts.len() == MESSAGES / 10
    });
    assert!(kept.await, "dead letters are missing: {}", world.dead_letters().await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_nodes_are_killed_under_load_and_no_message_is_lost() {
    let (mut world, doomed) = World::crashing().await;
    let seen = world.seen().await;
    world.stream("ORDERS", "orders").await;
    let mut sayer = world.sayer("sayer", &["stream:ORDERS?ack-wait=1s&max-deliver=4&backoff=50ms"]).await;
    sayer.limits.concurrency = Some(8);
    let started = Box::pin(world.client.deploy(&sayer, &doomed.target, &world.keys)).await.unwrap();
    // In parts: however fast they are handled, there are some left at each kill.
    let (third, mut messages) = (MESSAGES / 3, messages());
    world.put("orders", messages.by_ref().take(third)).await;
    until("some are handled", || seen.different() > 20).await;
    // The agent of the function, in the middle of calls.
    let warm = world.warm_agents();
    for (_, pid) in world.agents().into_iter().filter(|(id, _)| !warm.contains_key(id)) {
        kill9(pid);
    }
    world.put("orders", messages.by_ref().take(third)).await;
    until("it goes on", || seen.different() > third + 50).await;
    world.put("orders", messages).await;
    doomed.crash();
    world.start_node().await;
    is_back(&world, &started).await;
    all_are_dealt_with(&world, &seen).await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0).await;
    world.stop().await;
}

/// Has a stream keep what it gets, and has done so when it ends; fails where that begins with `bad`.
const RECORD: &[u8] = br#"
(subject, payload) => {
  const kept = JSON.parse(new TextDecoder().decode(hostServices.messaging.request("seen", payload)));
  if (!kept.seq) throw new Error("not kept");
  const text = new TextDecoder().decode(payload);
  if (text.startsWith("bad")) throw new Error("no " + text);
}
"#;

/// What was recorded.
async fn recorded(world: &World) -> BTreeSet<String> {
    let Ok(stream) = world.jetstream().get_stream("SEEN").await else { return BTreeSet::new() };
    let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
    let Ok(reader) = stream.create_consumer(config).await else { return BTreeSet::new() };
    let Ok(messages) = reader.fetch().max_messages(MESSAGES * 10).messages().await else { return BTreeSet::new() };
    let texts = messages.filter_map(async |message| String::from_utf8(message.ok()?.payload.to_vec()).ok());
    texts.collect().await
}

async fn recorded_are(world: &World, count: usize) {
    let done = eventually(timeout() * 2, async || recorded(world).await.len() >= count).await;
    assert!(done, "in vain waited for {count}; there are {}", recorded(world).await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_server_is_killed_under_load_and_no_message_is_lost() {
    let directory = TempDir::new().unwrap();
    let config = format!("jetstream: {{ sync_interval: always, store_dir: '{}' }}\n", directory.path().display());
    let nats = NatsServer::start_with(NatsOptions { config, ..NatsOptions::default() }).await;
    let connection = ConnectionSettings::to_servers(&nats.url());
    let mut world = World::start_on(nats, connection, json!({})).await;
    world.stream("SEEN", "seen").await;
    world.stream("ORDERS", "orders").await;
    let mut recorder = world.prepare("recorder", WorkloadType::V8, RECORD).await;
    recorder.triggers = Vec::new();
    recorder.durable = vec![durable("stream:ORDERS?ack-wait=1s&max-deliver=4&backoff=1s")];
    let started = world.deploy(&recorder).await;
    world.put("orders", messages()).await;
    recorded_are(&world, 20).await;
    world.nats.kill9();
    world.nats.restart().await;
    recorded_are(&world, MESSAGES).await;
    the_bad_ones_are_kept(&world).await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0 && it.state == "active").await;
    world.stop().await;
}

/// Has a stream keep what it gets, once for each message, as the documents say; not so fast that all is done before anything is killed.
const ONCE: &[u8] = br#"
export default { async fetch(request) {
  const text = await request.text();
  await new Promise((done) => setTimeout(done, 50));
  if (text.startsWith("bad")) throw new Error("no " + text);
  const id = `${request.headers.get("nats-stream")}-${request.headers.get("nats-sequence")}`;
  const answer = hostServices.messaging.request("effects", new TextEncoder().encode(text), { headers: { "Nats-Msg-Id": id } });
  const { error } = JSON.parse(new TextDecoder().decode(answer));
  if (error) throw new Error(error.description);
  return new Response();
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_cluster_and_an_agent_are_killed_under_load_and_each_message_has_one_effect() {
    let mut servers = NatsServer::start_cluster().await;
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let first = servers.remove(0);
    let mut world = World::start_on(first, ConnectionSettings::to_servers(&urls), json!({})).await;
    let config = |name: &str, subject: &str| stream::Config {
        name: name.into(),
        subjects: vec![subject.into()],
        num_replicas: 3,
        ..stream::Config::default()
    };
    for (name, subject) in [("ORDERS", "orders"), ("EFFECTS", "effects")] {
        let made = eventually(timeout(), async || world.jetstream().create_stream(config(name, subject)).await.is_ok()).await;
        assert!(made, "the cluster does not make {name}");
    }
    let mut once = world.prepare("once", WorkloadType::V8, ONCE).await;
    once.triggers = Vec::new();
    once.durable = vec![durable("stream:ORDERS?ack-wait=1s&max-deliver=8&backoff=50ms")];
    once.limits.concurrency = Some(8);
    let started = world.deploy(&once).await;
    world.put("orders", messages()).await;
    let effects = async || match world.jetstream().get_stream("EFFECTS").await {
        Ok(mut stream) => stream.info().await.map_or(0, |info| info.state.messages),
        Err(_away) => 0,
    };
    let goes_on = async |count: u64| {
        assert!(eventually(timeout() * 2, async || effects().await >= count).await, "in vain waited for {count} effects");
    };
    goes_on(20).await;
    let warm = world.warm_agents();
    for (_, pid) in world.agents().into_iter().filter(|(id, _)| !warm.contains_key(id)) {
        kill9(pid);
    }
    let good = MESSAGES as u64 * 9 / 10;
    for server in &mut servers {
        server.kill9();
        goes_on((effects().await + 20).min(good)).await;
        server.restart().await;
    }
    goes_on(good).await;
    // Their pauses grow, and each is long enough for the servers to have agreed again.
    let kept = eventually(timeout() * 4, async || world.dead_letters().await.len() >= MESSAGES / 10).await;
    assert!(kept, "dead letters are missing: {}", world.dead_letters().await.len());
    the_bad_ones_are_kept(&world).await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0).await;
    assert_eq!(effects().await, good, "one of each");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_a_trigger_and_one_dies() {
    let (mut world, doomed) = World::crashing().await;
    let seen = world.seen().await;
    world.stream("ORDERS", "orders").await;
    let mut sayer = world.sayer("sayer", &["stream:ORDERS?ack-wait=1s&max-deliver=4&backoff=50ms"]).await;
    sayer.limits.concurrency = Some(4);
    Box::pin(world.client.deploy(&sayer, &doomed.target, &world.keys)).await.unwrap();
    let other = TempDir::new().unwrap();
    let (node, target) = Box::pin(world.another_node(other.path())).await;
    let second = Box::pin(world.client.deploy(&sayer, &target, &world.keys)).await.unwrap();
    world.put("orders", messages()).await;
    until("both have handled some", || seen.different() > 50).await;
    let found = world.client.workloads(None, Duration::from_secs(2)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].workload.trigger_states[0].consumer, found[1].workload.trigger_states[0].consumer);
    doomed.crash();
    all_are_dealt_with(&world, &seen).await;
    world.until_trigger(&second, "nothing is left", |it| it.lag() == 0).await;
    Box::pin(node.stop()).await;
    // What the killed node left is the next one's to end.
    world.start_node().await;
    world.stop().await;
}

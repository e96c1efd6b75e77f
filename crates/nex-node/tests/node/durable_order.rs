//! Triggers that keep an order: of a key, or of all; while calls fail, agents and nodes die, and somebody meddles with the consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures::StreamExt as _;
use nex_client::deploy::Deployment;
use nex_protocol::deploy::WorkloadType;
use nex_testkit::eventually;
use serde_json::json;
use tempfile::TempDir;

use crate::crash::is_back;
use crate::durable::durable;
use crate::world::{World, kill9, timeout};

/// Has a stream keep what it gets, `KEY NUMBER KIND`, and has done so when it ends. Fails always for what is bad, and now and then for what
/// is shaky.
const EFFECT: &[u8] = br#"
export default { async fetch(request) {
  const text = await request.text();
  await new Promise((done) => setTimeout(done, Math.random() * 20));
  if (text.endsWith("bad") || text.endsWith("shaky") && Math.random() < 0.3) throw new Error("no " + text);
  const kept = JSON.parse(new TextDecoder().decode(hostServices.messaging.request("effects", new TextEncoder().encode(text))));
  if (!kept.seq) throw new Error("not kept");
  return new Response();
} }
"#;

const KEYS: usize = 5;
const OF_EACH: usize = 24;

/// All keys by turns: every eighth message fails always, the others now and then.
fn messages() -> impl Iterator<Item = (String, String)> {
    (0..KEYS * OF_EACH).map(|number| {
        let (key, kind) = (number % KEYS, if number % 8 == 7 { "bad" } else { "shaky" });
        (format!("orders.k{key}"), format!("k{key} {number} {kind}"))
    })
}

fn number(text: &str) -> usize {
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What became of the messages.
struct Fates {
    /// In the order in which they came.
    effects: Vec<String>,
    dead: BTreeSet<String>,
}

impl Fates {
    fn count(&self) -> usize {
        self.effects.iter().chain(&self.dead).collect::<BTreeSet<_>>().len()
    }

    /// What is between the first and the second blank counts: of each key, the first effects are in order.
    fn assert_order(&self, key: impl Fn(&str) -> String) {
        let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
        for text in self.effects.iter().filter(|text| seen.insert((*text).clone())) {
            let before = last.insert(key(text), number(text));
            assert!(before.is_none_or(|before| before < number(text)), "{text} is behind {before:?}: {:#?}", self.effects);
        }
    }
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap().to_owned()
}

impl World {
    async fn effect(&self, triggers: &[&str]) -> Deployment {
        let mut effect = self.prepare("effect", WorkloadType::V8, EFFECT).await;
        effect.triggers = Vec::new();
        effect.durable = triggers.iter().map(|text| durable(text)).collect();
        effect.limits.concurrency = Some(8);
        effect
    }

    async fn order_streams(&self) -> jetstream::stream::Stream {
        self.stream("EFFECTS", "effects").await;
        self.stream("ORDERS", "orders.*").await
    }

    async fn put_all(&self, messages: impl Iterator<Item = (String, String)>) {
        for (subject, text) in messages {
            let mut headers = async_nats::HeaderMap::new();
            // Those of one key have none.
            if !text.starts_with("k0") {
                headers.insert("Customer", first_word(&text));
            }
            let sent = self.jetstream().publish_with_headers(subject, headers, text.into()).await.unwrap();
            sent.await.unwrap();
        }
    }

    async fn fates(&self) -> Fates {
        let dead = self.dead_letters().await.iter().map(|letter| String::from_utf8(letter.payload.to_vec()).unwrap()).collect();
        let stream = self.jetstream().get_stream("EFFECTS").await.unwrap();
        let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
        let reader = stream.create_consumer(config).await.unwrap();
        let messages = reader.fetch().max_messages(100_000).messages().await.unwrap();
        let texts = messages.filter_map(async |message| String::from_utf8(message.ok()?.payload.to_vec()).ok());
        Fates { effects: texts.collect().await, dead }
    }

    async fn until_fates(&self, what: &str, holds: impl Fn(&Fates) -> bool) -> Fates {
        let held = eventually(timeout() * 3, async || holds(&self.fates().await)).await;
        let fates = self.fates().await;
        assert!(held, "in vain waited until {what}; {} are dealt with: {:#?}", fates.count(), fates.effects);
        fates
    }

    /// All are dealt with, in the order of each key, and what is bad is kept.
    async fn until_all_in_order(&self) {
        let fates = self.until_fates("all are dealt with", |it| it.count() == KEYS * OF_EACH).await;
        fates.assert_order(first_word);
        assert!(messages().filter(|(_, text)| text.ends_with("bad")).all(|(_, text)| fates.dead.contains(&text)));
    }

    async fn unpin(&self, consumer: &str) {
        let context = self.jetstream();
        let subject = format!("CONSUMER.UNPIN.ORDERS.{consumer}");
        let _answer: serde_json::Value = context.request(subject, &json!({"group": "nex"})).await.unwrap();
    }
}

async fn messages_of_a_key_are_in_order(trigger: &str) {
    let mut world = World::start(json!({})).await;
    world.order_streams().await;
    let started = world.deploy(&world.effect(&[trigger]).await).await;
    world.put_all(messages()).await;
    world.until_all_in_order().await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0 && it.held_back == 0 && it.dead >= 15).await;
    let letters = world.dead_letters().await;
    assert!(letters.iter().all(|letter| letter.headers.iter().all(|(name, _)| !name.to_string().contains("Pin-Id"))));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_subject_are_handled_in_order_though_some_fail() {
    Box::pin(messages_of_a_key_are_in_order("stream:ORDERS?order=subject&max-deliver=8&backoff=10ms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_header_are_handled_in_order_and_so_are_those_without_it() {
    Box::pin(messages_of_a_key_are_in_order("stream:ORDERS?order=header:Customer&max-deliver=8&backoff=10ms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_messages_are_handled_in_order_where_that_is_wanted() {
    let mut world = World::start(json!({})).await;
    world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=all&max-deliver=8&backoff=10ms"]).await;
    for _copy in 0..2 {
        world.deploy(&effect).await;
    }
    world.put_all(messages()).await;
    world.until_all_in_order().await;
    world.fates().await.assert_order(|_text| String::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_holds_back_no_other_and_its_next_goes_on_when_it_is_given_up() {
    let mut world = World::start(json!({})).await;
    world.order_streams().await;
    let started = world.deploy(&world.effect(&["stream:ORDERS?order=subject&max-deliver=2&backoff=1h"]).await).await;
    let put = async |texts: &[&str]| {
        world.put_all(texts.iter().map(|text| (format!("orders.{}", first_word(text)), (*text).to_owned()))).await;
    };
    put(&["k1 0 bad", "k1 1 good", "k2 2 good", "k2 3 good", "k3 4 good"]).await;
    world.until_fates("the others are done", |it| it.effects.len() == 3).await;
    world.until_trigger(&started, "one waits", |it| it.held_back == 1 && it.retried == 1 && it.lag() == 2).await;
    assert_eq!(world.fates().await.count(), 3, "it waits");
    // With less patience it is given up.
    let hasty = world.effect(&["stream:ORDERS?order=subject&max-deliver=1"]).await;
    let second = world.deploy(&hasty).await;
    world.stop_workload(&started).await;
    let consumer = world.trigger(&second).await.consumer;
    world.until_fates("it is given up, and the next is done", |it| it.dead.contains("k1 0 bad") && it.effects.len() == 4).await;
    let stream = world.jetstream().get_stream("ORDERS").await.unwrap();
    let config = stream.consumer_info(&consumer).await.unwrap().config;
    assert_eq!((config.priority_policy, config.max_ack_pending), (consumer::PriorityPolicy::PinnedClient, 64));
    world.stop().await;
}

/// What one copy has left undone, and done behind it, is known to the next one though it has heard of neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_holds_back_no_other_after_another_copy_has_taken_over() {
    let mut world = World::start(json!({})).await;
    world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=subject&max-deliver=9&backoff=1h"]).await;
    let started = world.deploy(&effect).await;
    let put = async |texts: &[&str]| {
        world.put_all(texts.iter().map(|text| (format!("orders.{}", first_word(text)), (*text).to_owned()))).await;
    };
    put(&["k1 0 bad", "k1 1 good", "k2 2 good", "k3 3 good"]).await;
    world.until_fates("the others are done", |it| it.effects.len() == 2).await;
    let second = world.deploy(&effect).await;
    world.stop_workload(&started).await;
    put(&["k2 4 good", "k3 5 good", "k1 6 good"]).await;
    world.until_fates("the others go on", |it| it.effects.len() == 4).await;
    world.until_trigger(&second, "two wait", |it| it.held_back == 2 && it.retried == 1 && it.lag() == 3).await;
    world.fates().await.assert_order(first_word);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_of_a_key_are_told_in_order() {
    let mut world = World::start(json!({})).await;
    world.stream("EFFECTS", "effects").await;
    let config = jetstream::kv::Config { bucket: "SETTINGS".into(), history: 64, ..Default::default() };
    let bucket = world.jetstream().create_key_value(config).await.unwrap();
    world.deploy(&world.effect(&["kv:SETTINGS?order=key&max-deliver=8&backoff=10ms"]).await).await;
    for (subject, text) in messages() {
        bucket.put(subject, text.into()).await.unwrap();
    }
    world.until_all_in_order().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_key_is_kept_when_its_agent_and_its_node_are_killed() {
    let (mut world, doomed) = World::crashing().await;
    world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=subject&max-deliver=8&ack-wait=1s&backoff=10ms"]).await;
    let started = Box::pin(world.client.deploy(&effect, &doomed.target, &world.keys)).await.unwrap();
    let mut messages = messages();
    let third = KEYS * OF_EACH / 3;
    world.put_all(messages.by_ref().take(third)).await;
    world.until_fates("some are done", |it| it.count() > 5).await;
    let warm = world.warm_agents();
    for (_, pid) in world.agents().into_iter().filter(|(id, _)| !warm.contains_key(id)) {
        kill9(pid);
    }
    world.put_all(messages.by_ref().take(third)).await;
    world.until_fates("it goes on", |it| it.count() > third + 5).await;
    world.put_all(messages).await;
    doomed.crash();
    world.start_node().await;
    is_back(&world, &started).await;
    world.until_all_in_order().await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_in_order_when_the_one_that_has_the_messages_dies() {
    let (mut world, doomed) = World::crashing().await;
    world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=subject&max-deliver=8&ack-wait=1s&backoff=10ms"]).await;
    Box::pin(world.client.deploy(&effect, &doomed.target, &world.keys)).await.unwrap();
    let mut messages = messages();
    world.put_all(messages.by_ref().take(KEYS * OF_EACH / 2)).await;
    world.until_fates("the first node has them", |it| it.count() > 5).await;
    let other = TempDir::new().unwrap();
    let (node, target) = Box::pin(world.another_node(other.path())).await;
    let second = Box::pin(world.client.deploy(&effect, &target, &world.keys)).await.unwrap();
    world.put_all(messages).await;
    doomed.crash();
    world.until_all_in_order().await;
    world.until_trigger(&second, "nothing is left", |it| it.lag() == 0).await;
    Box::pin(node.stop()).await;
    // What the killed node left is the next one's to end.
    world.start_node().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_keep_the_order_though_somebody_unpins_them_and_reads_their_messages() {
    let mut world = World::start(json!({})).await;
    world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=subject&max-deliver=8&ack-wait=1s&backoff=10ms"]).await;
    let started = world.deploy(&effect).await;
    world.deploy(&effect).await;
    let consumer = world.trigger(&started).await.consumer;
    world.put_all(messages()).await;
    let mut stolen = world.client.nats().subscribe("stolen").await.unwrap();
    for round in 0..8 {
        world.until_fates("it goes on", |it| it.count() > round * 8).await;
        let asked = if round % 2 == 0 { json!({"batch": 2, "group": "nex"}) } else { json!({"batch": 1}) };
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.ORDERS.{consumer}");
        world.client.nats().publish_with_reply(next, "stolen", asked.to_string().into()).await.unwrap();
        world.unpin(&consumer).await;
    }
    world.until_all_in_order().await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0 && it.state == "active").await;
    stolen.unsubscribe().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_deleted_or_loosened_is_made_again_and_the_order_kept() {
    let mut world = World::start(json!({})).await;
    let stream = world.order_streams().await;
    let effect = world.effect(&["stream:ORDERS?order=subject&max-deliver=8&ack-wait=1s&backoff=10ms"]).await;
    let started = world.deploy(&effect).await;
    let consumer = world.trigger(&started).await.consumer;
    world.put_all(messages()).await;
    for round in 1..4 {
        world.until_fates("it goes on", |it| it.count() > round * 20).await;
        // It may not be made again yet.
        let deleted = eventually(timeout(), async || stream.delete_consumer(&consumer).await.is_ok()).await;
        assert!(deleted, "there is no consumer");
    }
    world.until_all_in_order().await;
    world.until_trigger(&started, "nothing is left", |it| it.lag() == 0 && it.state == "active").await;
    // The next version has no order, and the one after it has.
    let loose = world.effect(&["stream:ORDERS?ack-wait=1s"]).await;
    let second = world.deploy(&loose).await;
    world.stop_workload(&started).await;
    world.put_all([("orders.k9".to_owned(), "k9 900 good".to_owned())].into_iter()).await;
    world.until_fates("it goes on without", |it| it.effects.iter().any(|text| text.starts_with("k9"))).await;
    let third = world.deploy(&effect).await;
    world.stop_workload(&second).await;
    world.put_all([("orders.k9".to_owned(), "k9 901 good".to_owned())].into_iter()).await;
    world.until_fates("and with", |it| it.effects.iter().any(|text| text.starts_with("k9 901"))).await;
    let config = world.jetstream().get_stream("ORDERS").await.unwrap().consumer_info(&consumer).await.unwrap().config;
    assert!(config.priority_timeout == Duration::from_secs(1) && config.priority_groups == ["nex"], "{config:?}");
    world.until_trigger(&third, "it is served", |it| it.state == "active").await;
    world.stop().await;
}

//! Triggers that keep their messages: streams, buckets, dead letters, several copies, and what is left when they are stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::{self, stream};
use futures::StreamExt as _;
use nex_client::deploy::Deployment;
use nex_protocol::control::TriggerSummary;
use nex_protocol::deploy::{DeployResponse, WorkloadType};
use nex_protocol::trigger::{DurableTrigger, Trigger, dead};
use nex_testkit::{eventually, machines};
use serde_json::json;
use tokio::task::JoinSet;

use crate::functions::relaying;
use crate::world::{World, timeout};

/// Says on `seen` what it gets, and fails where that begins with `bad`.
pub(crate) const SAY: &str = r#"
(subject, payload) => {
  hostServices.messaging.publish("seen", payload);
  const text = new TextDecoder().decode(payload);
  if (text.startsWith("bad")) throw new Error("no " + text);
  if (text.startsWith("slow")) { const end = Date.now() + 1500; while (Date.now() < end) {} }
}
"#;

pub(crate) fn durable(text: &str) -> DurableTrigger {
    match text.parse() {
        Ok(Trigger::Durable(trigger)) => trigger,
        other => panic!("{text}: {other:?}"),
    }
}

/// What functions have said, and how often.
pub(crate) struct Seen {
    said: Arc<Mutex<BTreeMap<String, usize>>>,
    _ear: JoinSet<()>,
}

impl Seen {
    pub(crate) fn count(&self, text: &str) -> usize {
        self.said.lock().unwrap().get(text).copied().unwrap_or(0)
    }

    pub(crate) fn different(&self) -> usize {
        self.said.lock().unwrap().len()
    }

    pub(crate) fn all(&self) -> usize {
        self.said.lock().unwrap().values().sum()
    }
}

impl World {
    pub(crate) fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.nats().clone())
    }

    pub(crate) async fn stream(&self, name: &str, subject: &str) -> stream::Stream {
        let config = stream::Config { name: name.into(), subjects: vec![subject.into()], ..stream::Config::default() };
        self.jetstream().create_stream(config).await.unwrap()
    }

    pub(crate) async fn put(&self, subject: &str, texts: impl Iterator<Item = String>) {
        let (jetstream, mut sent) = (self.jetstream(), Vec::new());
        for text in texts {
            sent.push(jetstream.publish(subject.to_owned(), text.into()).await.unwrap());
        }
        for sent in sent {
            sent.await.unwrap();
        }
    }

    pub(crate) async fn seen(&self) -> Seen {
        self.listen("seen", |message| String::from_utf8(message.payload.to_vec()).unwrap()).await
    }

    async fn listen(&self, subject: &'static str, read: fn(&Message) -> String) -> Seen {
        let (said, mut ear) = (Arc::new(Mutex::new(BTreeMap::new())), JoinSet::new());
        let mut messages = self.client.nats().subscribe(subject).await.unwrap();
        self.client.nats().flush().await.unwrap();
        let heard = Arc::clone(&said);
        ear.spawn(async move {
            while let Some(message) = messages.next().await {
                *heard.lock().unwrap().entry(read(&message)).or_default() += 1;
            }
        });
        Seen { said, _ear: ear }
    }

    /// A function that says what it gets, and what calls it.
    pub(crate) async fn sayer(&self, name: &str, triggers: &[&str]) -> Deployment {
        let mut sayer = self.prepare(name, WorkloadType::V8, SAY.as_bytes()).await;
        sayer.triggers = Vec::new();
        sayer.durable = triggers.iter().map(|text| durable(text)).collect();
        // What fails fails on purpose: a busy machine is no reason.
        sayer.limits.call_timeout_ms = u64::try_from(machines::timeout(Duration::from_secs(10)).as_millis()).ok();
        sayer
    }

    pub(crate) async fn trigger(&self, started: &DeployResponse) -> TriggerSummary {
        self.workload(&started.id).await.unwrap().trigger_states.remove(0)
    }

    pub(crate) async fn until_trigger(&self, started: &DeployResponse, what: &str, holds: impl Fn(&TriggerSummary) -> bool) {
        let held = eventually(timeout(), async || holds(&self.trigger(started).await)).await;
        assert!(held, "in vain waited until {what}: {:?}", self.trigger(started).await);
    }

    pub(crate) async fn dead_letters(&self) -> Vec<jetstream::message::StreamMessage> {
        let Ok(mut stream) = self.jetstream().get_stream("NEX_DEAD_default").await else { return Vec::new() };
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut letters = Vec::new();
        for sequence in 1..=last {
            letters.extend(stream.get_raw_message(sequence).await);
        }
        letters
    }
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    assert!(eventually(timeout(), || std::future::ready(holds())).await, "in vain waited until {what}");
}

/// Header of a dead letter.
pub(crate) fn header<'a>(letter: &'a jetstream::message::StreamMessage, name: &str) -> &'a str {
    letter.headers.get(name).map_or("", |value| value.as_str())
}

async fn every_message_is_handled_and_what_fails_is_kept(mut world: World) {
    let seen = world.seen().await;
    world.stream("ORDERS", "orders.*").await;
    world.put("orders.new", (0..10).map(|number| format!("early {number}"))).await;
    world.put("orders.old", (0..3).map(|number| format!("other {number}"))).await;
    let trigger = "stream:ORDERS?filter=orders.new&start=all&max-deliver=3&backoff=10ms";
    let mut sayer = world.sayer("sayer", &[trigger]).await;
    sayer.triggers = vec!["sayer".into()];
    let started = world.deploy(&sayer).await;
    world.put("orders.new", (0..100).map(|number| format!("order {number}"))).await;
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [("X-Mine", "kept"), ("Nats-Msg-Id", "mine"), ("Nex-Subject", "forged")] {
        headers.insert(name, value);
    }
    world.jetstream().publish_with_headers("orders.new", headers, "bad egg".into()).await.unwrap().await.unwrap();
    until("all are handled", || seen.different() == 111 && seen.count("bad egg") == 3).await;
    world.until_trigger(&started, "nothing is left to do", |it| it.lag() == 0 && it.done == 110 && it.dead == 1).await;
    let (trigger_state, letters) = (world.trigger(&started).await, world.dead_letters().await);
    assert_eq!((trigger_state.state.as_str(), trigger_state.retried), ("active", 2), "{trigger_state:?}");
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.subject.as_str(), &letter.payload[..]), ("$NEX.dead.default.sayer", &b"bad egg"[..]));
    for (name, expected) in [
        (dead::ATTEMPTS, "3"),
        (dead::WORKLOAD, "sayer"),
        (dead::WORKLOAD_ID, &started.id),
        (dead::TRIGGER, trigger),
        (dead::STREAM, "ORDERS"),
        (dead::SEQUENCE, "114"),
        (dead::SUBJECT, "orders.new"),
        ("X-Mine", "kept"),
        ("Nex-Kept-Nats-Msg-Id", "mine"),
        ("Nex-Kept-Nex-Subject", "forged"),
    ] {
        assert_eq!(header(letter, name), expected, "{name}: {:?}", letter.headers);
    }
    assert!(header(letter, dead::REASON).contains("no bad egg"), "{:?}", letter.headers);
    world.until("its deployer is told", |it| it.has_logged("kept as a dead letter")).await;
    assert!(seen.all() == 113, "the other subject is nobody's");
    assert_eq!(world.call("sayer", "called").await, "", "and it is called as ever");
    let summary = world.workload(&started.id).await.unwrap();
    assert_eq!(summary.triggers, ["sayer", trigger]);
    world.stop_workload(&started).await;
    assert!(world.jetstream().get_stream("ORDERS").await.unwrap().consumer_info(&trigger_state.consumer).await.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_stream_is_handled_and_what_fails_is_kept_with_its_reason() {
    Box::pin(every_message_is_handled_and_what_fails_is_kept(World::start(json!({})).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_also_where_the_node_has_credentials_of_its_own() {
    Box::pin(every_message_is_handled_and_what_fails_is_kept(relaying(json!({})).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_buckets_call_functions() {
    let mut world = World::start(json!({})).await;
    let jetstream = world.jetstream();
    let kv = jetstream
        .create_key_value(jetstream::kv::Config { bucket: "SETTINGS".into(), history: 5, ..Default::default() })
        .await
        .unwrap();
    let object_config = jetstream::object_store::Config { bucket: "PHOTOS".into(), ..Default::default() };
    let photos = jetstream.create_object_store(object_config).await.unwrap();
    let script = b"(subject, payload) => { hostServices.messaging.publish('seen', new TextEncoder().encode(subject + ' ' + new TextDecoder().decode(payload))) }";
    let mut watcher = world.prepare("watcher", WorkloadType::V8, script).await;
    watcher.triggers = Vec::new();
    watcher.durable = vec![durable("kv:SETTINGS?key=prices.*"), durable("object:PHOTOS")];
    let seen = world.seen().await;
    world.deploy(&watcher).await;
    kv.put("prices.tea", "3".into()).await.unwrap();
    kv.put("names.tea", "black".into()).await.unwrap();
    kv.delete("prices.tea").await.unwrap();
    photos.put("cat", &mut &b"meow"[..]).await.unwrap();
    let told = |it: &Seen, text: &str| it.said.lock().unwrap().keys().filter(|said| said.contains(text)).count();
    until("all is told", || {
        seen.count("$KV.SETTINGS.prices.tea 3") == 1 && seen.count("$KV.SETTINGS.prices.tea ") == 1 && told(&seen, "\"cat\"") == 1
    })
    .await;
    assert_eq!(told(&seen, "names"), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_taken_than_there_are_slots_and_the_rest_is_another_copys() {
    let mut world = World::start(json!({})).await;
    let seen = world.seen().await;
    world.stream("JOBS", "jobs").await;
    let mut sayer = world.sayer("sayer", &["stream:JOBS?ack-wait=1s"]).await;
    sayer.limits.concurrency = Some(2);
    let started = world.deploy(&sayer).await;
    world.put("jobs", (0..6).map(|number| format!("slow {number}"))).await;
    until("two are under way", || seen.different() == 2).await;
    let mut consumer = consumer(&world, &world.trigger(&started).await).await;
    let info = consumer.info().await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending), (2, 4));
    until("all were handled", || seen.different() == 6).await;
    world.until_trigger(&started, "all are done", |it| it.done == 6).await;
    assert_eq!(seen.all(), 6, "though each took longer than its time to be acknowledged");
    world.stop().await;
}

async fn consumer(world: &World, trigger: &TriggerSummary) -> jetstream::consumer::PullConsumer {
    world.jetstream().get_stream(&trigger.stream).await.unwrap().get_consumer(&trigger.consumer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_outlives_its_node_and_the_copy_that_is_replaced_and_goes_with_the_last_one() {
    let mut world = World::start(json!({})).await;
    let seen = world.seen().await;
    let stream = world.stream("ORDERS", "orders").await;
    let sayer = world.sayer("sayer", &["stream:ORDERS"]).await;
    let first = world.deploy(&sayer).await;
    world.put("orders", (0..5).map(|number| format!("first {number}"))).await;
    until("the first are handled", || seen.different() == 5).await;
    // The next version has other times, and begins where the first was.
    let second = world.deploy(&Deployment { durable: vec![durable("stream:ORDERS?ack-wait=7s&start=all")], ..sayer }).await;
    world.stop_workload(&first).await;
    let trigger = world.trigger(&second).await;
    assert_eq!(consumer(&world, &trigger).await.info().await.unwrap().config.ack_wait, Duration::from_secs(7));
    world.put("orders", (0..5).map(|number| format!("second {number}"))).await;
    until("the second are handled", || seen.different() == 10).await;
    world.stop().await;
    world.put("orders", (0..5).map(|number| format!("third {number}"))).await;
    world.start_node().await;
    assert!(world.client.workloads(None, Duration::from_secs(1)).await.unwrap().is_empty(), "the node was stopped in order");
    let third = world.deploy(&world.sayer("sayer", &["stream:ORDERS"]).await).await;
    until("what came meanwhile is handled", || seen.different() == 15).await;
    assert_eq!(seen.all(), 15);
    world.stop_workload(&third).await;
    assert!(stream.consumer_info(&trigger.consumer).await.is_err(), "nobody reads it any more");
    world.stop().await;
}

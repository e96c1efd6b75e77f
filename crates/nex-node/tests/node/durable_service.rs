//! Services whose triggers keep their messages: asked on a subject of their own, and what becomes of a message is what they answer.

use async_nats::jetstream::stream;
use async_nats::{HeaderMap, Message, Subscriber};
use futures::StreamExt as _;
use nex_client::deploy::Deployment;
use nex_protocol::deploy::WorkloadType;
use nex_protocol::trigger::dead;
use nex_testkit::{NatsServer, dist_binary, machines};
use serde_json::json;

use crate::durable::{durable, header};
use crate::durable_hostile::without;
use crate::world::{World, timeout};

/// Where the service of these tests is asked.
const SUBJECT: &str = "nex.svc.default.taker";

/// The example service, with triggers.
async fn taker(world: &World, triggers: &[&str]) -> Deployment {
    let program = std::fs::read(dist_binary("echo-service")).unwrap();
    let mut taker = world.prepare("taker", WorkloadType::Native, &program).await;
    taker.environment.insert("NATS_URL".into(), world.nats_for_workloads());
    taker.durable = triggers.iter().map(|text| durable(text)).collect();
    taker
}

/// The same, but what it connects to is another NATS: nobody listens on this one until a test does.
async fn deaf(world: &World, elsewhere: &NatsServer, triggers: &[&str]) -> Deployment {
    let mut taker = taker(world, triggers).await;
    let url = elsewhere.url();
    let url = if machines::in_machines() { url.replace("127.0.0.1", "host.nex.internal") } else { url };
    taker.environment.insert("NATS_URL".into(), url);
    taker
}

/// A node whose workloads reach another NATS server, too.
async fn two_servers() -> (World, NatsServer) {
    let elsewhere = NatsServer::start().await;
    let world = World::start(json!({"network": {"host_ports": [elsewhere.port()]}})).await;
    (world, elsewhere)
}

async fn next(messages: &mut Subscriber) -> Message {
    tokio::time::timeout(timeout(), messages.next()).await.expect("it is asked").unwrap()
}

fn text<'a>(message: &'a Message, name: &str) -> &'a str {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |value| value.as_str())
}

impl World {
    async fn answer(&self, message: &Message, headers: &[(&str, &str)]) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        self.client.nats().publish_with_headers(message.reply.clone().unwrap(), map, "".into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_deals_with_the_messages_of_a_stream_without_a_line_about_streams() {
    let mut world = World::start(json!({})).await;
    let orders = world.stream("ORDERS", "orders").await;
    let mut taker = taker(&world, &["stream:ORDERS?max-deliver=2&backoff=10ms", "every:1s"]).await;
    // Where it is asked is not its deployer's to say.
    taker.environment.insert("nex_trigger_subject".into(), "another".into());
    let started = world.deploy(&taker).await;
    world.put("orders", (0..100).map(|number| format!("order {number}")).chain(["bad egg".into()])).await;
    world.until_trigger(&started, "all are dealt with", |it| it.done == 100 && it.dead == 1).await;
    for number in 0..100 {
        let line = format!("got order {number}");
        assert_eq!(world.logs().iter().filter(|(_, it)| it.text == line).count(), 1, "{line}");
    }
    let letter = world.dead_letters().await.remove(0);
    assert_eq!((&letter.payload[..], header(&letter, dead::REASON)), (&b"bad egg"[..], "no bad egg"));
    assert_eq!((header(&letter, dead::ATTEMPTS), header(&letter, dead::WORKLOAD)), ("2", "taker"));
    // What was given up goes to the service again.
    let answer =
        world.client.nats().request_with_headers("$NEX.redrive.default.taker", letter.headers.clone(), "good egg".into());
    assert_eq!(answer.await.unwrap().payload, "");
    world.until("it got that", |it| it.has_logged("got good egg")).await;
    let answer = world.client.nats().request_with_headers("$NEX.redrive.default.taker", letter.headers, "bad egg".into());
    assert!(String::from_utf8_lossy(&answer.await.unwrap().payload).contains("no bad egg"));

    let summary = world.workload(&started.id).await.unwrap();
    assert_eq!(summary.triggers, ["stream:ORDERS?max-deliver=2&backoff=10ms", "every:1s"]);
    world.until_trigger(&started, "it is active", |it| it.state == "active").await;
    world.until("the clock was heard", |it| it.logs().iter().any(|(_, line)| line.text == "got ")).await;
    let consumer = world.trigger(&started).await.consumer;
    world.stop_workload(&started).await;
    assert!(orders.consumer_info(&consumer).await.is_err(), "nobody reads it any more");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_answers_is_what_becomes_of_the_message() {
    let (mut world, elsewhere) = two_servers().await;
    world.stream("ORDERS", "orders.*").await;
    let started = world.deploy(&deaf(&world, &elsewhere, &["stream:ORDERS?max-deliver=3&backoff=10ms"]).await).await;
    // Nobody listens, which is no attempt.
    world.put("orders.new", ["one".to_owned()].into_iter()).await;
    world.until_trigger(&started, "it is said", |it| it.state == "failing" && it.last_error.is_some()).await;
    let trigger = world.trigger(&started).await;
    assert!(trigger.last_error.as_deref().unwrap().contains("no service listens on nex.svc.default.taker"), "{trigger:?}");
    world.until("its deployer is told", |it| it.has_logged("waits: no service listens")).await;

    let mut asked = world.client.nats().queue_subscribe(SUBJECT, "any".into()).await.unwrap();
    let first = next(&mut asked).await;
    assert_eq!(
        (&first.payload[..], text(&first, "Nex-Subject"), text(&first, "Nex-Trigger")),
        (&b"one"[..], "orders.new", "stream")
    );
    assert_eq!((text(&first, "Nex-Attempt"), text(&first, "Nats-Stream"), text(&first, "Nats-Sequence")), ("1", "ORDERS", "1"));
    world.answer(&first, &[("Nats-Service-Error-Code", "500"), ("Nats-Service-Error", "not now")]).await;
    let again = next(&mut asked).await;
    assert_eq!(text(&again, "Nex-Attempt"), "2");
    world.answer(&again, &[("Nex-Outcome", "nak"), ("Nex-Delay-Ms", "20")]).await;
    let last = next(&mut asked).await;
    assert_eq!(text(&last, "Nex-Attempt"), "3");
    world.client.nats().publish(last.reply.clone().unwrap(), "done".into()).await.unwrap();
    world.until_trigger(&started, "it is done", |it| it.done == 1 && it.retried == 2 && it.state == "active").await;
    world.put("orders.new", ["two".to_owned()].into_iter()).await;
    let poison = next(&mut asked).await;
    world.answer(&poison, &[("Nex-Outcome", "term")]).await;
    world.until_trigger(&started, "it is given up at once", |it| it.dead == 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_its_subject_acknowledges_nothing_in_its_place() {
    let (mut world, elsewhere) = two_servers().await;
    world.stream("ORDERS", "orders").await;
    world.stream("ALL", "nex.svc.>").await;
    let started = world.deploy(&deaf(&world, &elsewhere, &["stream:ORDERS?max-deliver=100&backoff=10ms"]).await).await;
    world.put("orders", ["one".to_owned()].into_iter()).await;
    let is_said = |error: &String| error.contains("the stream ALL has the subject");
    world.until_trigger(&started, "it is said", |it| it.last_error.as_ref().is_some_and(is_said)).await;
    let mut all: stream::Stream = world.jetstream().get_stream("ALL").await.unwrap();
    assert_eq!(all.info().await.unwrap().state.messages, 0, "it keeps none of it");
    assert_eq!(world.trigger(&started).await.done, 0);
    world.jetstream().delete_stream("ALL").await.unwrap();
    let mut asked = world.client.nats().queue_subscribe(SUBJECT, "any".into()).await.unwrap();
    let message = next(&mut asked).await;
    world.client.nats().publish(message.reply.clone().unwrap(), "".into()).await.unwrap();
    world.until_trigger(&started, "it is done", |it| it.done == 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_asked_waits_and_is_said_by_its_subject() {
    let mut world = without("nex.svc.>").await;
    let started = world.deploy(&taker(&world, &["stream:ORDERS?max-deliver=1"]).await).await;
    world.until("it listens", |it| it.has_logged("EchoService listens")).await;
    world.put("orders", ["one".to_owned()].into_iter()).await;
    let is_said = |error: &String| error.contains("may not publish to \"nex.svc.default.taker\"");
    world.until_trigger(&started, "it is said", |it| it.state == "failing" && it.last_error.as_ref().is_some_and(is_said)).await;
    let trigger = world.trigger(&started).await;
    assert!(trigger.dead == 0 && trigger.retried == 0, "it is no attempt: {trigger:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_slow_is_asked_again_and_one_that_is_replaced_loses_nothing() {
    let (mut world, elsewhere) = two_servers().await;
    world.stream("ORDERS", "orders").await;
    let mut slow = deaf(&world, &elsewhere, &["stream:ORDERS?backoff=10ms"]).await;
    slow.limits.call_timeout_ms = Some(300);
    let started = world.deploy(&slow).await;
    let mut asked = world.client.nats().queue_subscribe(SUBJECT, "any".into()).await.unwrap();
    world.put("orders", ["one".to_owned()].into_iter()).await;
    // Not answered.
    assert_eq!(text(&next(&mut asked).await, "Nex-Attempt"), "1");
    let again = next(&mut asked).await;
    assert_eq!(text(&again, "Nex-Attempt"), "2");
    world.client.nats().publish(again.reply.unwrap(), "".into()).await.unwrap();
    world.until_trigger(&started, "it is done", |it| it.done == 1).await;
    let why = world.trigger(&started).await.last_error.unwrap();
    assert!(why.contains("did not answer within 300 ms"), "{why}");
    // Messages wait for a service that does not listen; with the next version they are its.
    drop(asked);
    world.client.nats().flush().await.unwrap();
    world.put("orders", (0..20).map(|number| format!("order {number}"))).await;
    world.until_trigger(&started, "they wait", |it| it.state == "failing").await;
    let next_version = world.deploy(&taker(&world, &["stream:ORDERS?backoff=10ms"]).await).await;
    world.stop_workload(&started).await;
    let got = |it: &World| (0..20).filter(|number| it.has_logged(&format!("got order {number}"))).count();
    world.until("all are dealt with", |it| got(it) == 20).await;
    world.until_trigger(&next_version, "it is active", |it| it.state == "active").await;
    assert!(world.dead_letters().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_subscribes_its_subjects_itself_and_a_job_is_not_called() {
    let mut world = World::start(json!({})).await;
    let mut called = taker(&world, &[]).await;
    called.triggers = vec!["orders.new".into()];
    assert!(world.refused(&called).await.message.contains("have it subscribe its subjects itself"));
    let mut reads_nothing = taker(&world, &["stream:NONE"]).await;
    assert!(world.refused(&reads_nothing).await.message.contains("there is no stream NONE"));
    reads_nothing.policy = serde_json::from_value(json!({"job": {}})).unwrap();
    assert!(world.refused(&reads_nothing).await.message.contains("a job has no triggers"));
    world.stop().await;
}

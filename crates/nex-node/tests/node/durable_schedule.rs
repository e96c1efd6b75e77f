//! Schedules: kept by the server, one call each time, however many copies there are, and gone with the last of them.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use nex_client::deploy::{Deployment, Target};
use nex_node::Node;
use nex_protocol::deploy::WorkloadType;
use serde_json::json;
use tempfile::TempDir;

use crate::durable::{durable, until};
use crate::world::{World, options};

/// Says which schedule called it.
const TELL: &[u8] = b"(subject) => { hostServices.messaging.publish('seen', new TextEncoder().encode(subject)) }";

async fn teller(world: &World, triggers: &[&str]) -> Deployment {
    let mut teller = world.prepare("teller", WorkloadType::V8, TELL).await;
    teller.triggers = Vec::new();
    teller.durable = triggers.iter().map(|text| durable(text)).collect();
    teller
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_calls_one_copy_each_time_and_goes_with_the_last_one() {
    let (mut world, doomed) = World::crashing().await;
    let seen = world.seen().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    let at = format!("at:{}", jiff::Timestamp::from_second(soon.as_second()).unwrap());
    let teller = teller(&world, &["every:1s?ack-wait=1s", &at, "cron:* * * * *?tz=Europe/Berlin"]).await;
    Box::pin(world.client.deploy(&teller, &doomed.target, &world.keys)).await.unwrap();
    let other = TempDir::new().unwrap();
    let node = Box::pin(Node::start(options(world.connection.clone(), other.path().join("state"), &json!({})))).await.unwrap();
    let identity = node.identity();
    let target = Target::new(identity.node.clone(), identity.xkey.public_key(), &identity.xkey_signature).unwrap();
    let second = Box::pin(world.client.deploy(&teller, &target, &world.keys)).await.unwrap();
    let fired = async || {
        let mut stream = world.jetstream().get_stream("NEX_SCHEDULES_default").await.unwrap();
        let info = stream.info_with_subjects("$NEX.fire.default.>").await.unwrap();
        let mut total = 0;
        let mut counts = info;
        while let Some(subject) = futures::TryStreamExt::try_next(&mut counts).await.unwrap() {
            total += subject.1;
        }
        drop(stream.info().await);
        total
    };
    until("it was called some times", || seen.count("every:1s") >= 4).await;
    doomed.crash();
    until("it is called though one node is dead", || seen.count("every:1s") >= 8 && seen.count(&at) == 1).await;
    let (said, came) = (seen.all(), fired().await);
    assert!(said <= came + 2, "said {said} of {came}: each time is one call, but for one in the hands of the killed node");
    world
        .client
        .stop(&target.node, &second.id.parse().unwrap(), &second.name.parse().unwrap(), &world.keys.issuer)
        .await
        .unwrap();
    // The other node is dead: nobody reads it, and it ends.
    let mut stream = world.jetstream().get_stream("NEX_SCHEDULES_default").await.unwrap();
    let info = stream.info().await.unwrap();
    assert_eq!((info.state.messages, info.state.consumer_count), (0, 0));
    Box::pin(node.stop()).await;
    world.start_node().await;
    world.stop().await;
}

/// Says which time has come.
const COUNT: &[u8] = b"export default { async fetch(request) {
  hostServices.messaging.publish('seen', new TextEncoder().encode(request.headers.get('nats-sequence')));
  return new Response();
} }";

#[tokio::test(flavor = "multi_thread")]
async fn no_time_of_fifty_schedules_is_missed_though_a_node_is_killed_six_times() {
    const KILLS: usize = 6;
    let (mut world, mut doomed) = World::crashing().await;
    let seen = world.seen().await;
    let other = TempDir::new().unwrap();
    let node = Box::pin(Node::start(options(world.connection.clone(), other.path().join("state"), &json!({})))).await.unwrap();
    let identity = node.identity();
    let target = Target::new(identity.node.clone(), identity.xkey.public_key(), &identity.xkey_signature).unwrap();
    for number in 0..5 {
        let mut counter = world.prepare(&format!("counter-{number}"), WorkloadType::V8, COUNT).await;
        counter.triggers = Vec::new();
        counter.durable = (1..=10).map(|seconds| durable(&format!("every:{seconds}s?ack-wait=1s&backoff=50ms"))).collect();
        Box::pin(world.client.deploy(&counter, &doomed.target, &world.keys)).await.unwrap();
        Box::pin(world.client.deploy(&counter, &target, &world.keys)).await.unwrap();
    }
    for _ in 0..KILLS {
        let before = seen.different();
        until("times come", || seen.different() > before + 20).await;
        doomed.crash();
        doomed = world.start_doomed().await;
    }
    let mut stream = world.jetstream().get_stream("NEX_SCHEDULES_default").await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut came = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await;
        came.extend(message.ok().filter(|message| message.subject.starts_with("$NEX.fire.")).map(|_| sequence.to_string()));
    }
    assert!(came.len() > KILLS * 20, "{came:?}");
    until("each time was a call", || came.iter().all(|time| seen.count(time) >= 1)).await;
    let again: usize = came.iter().map(|time| seen.count(time) - 1).sum();
    assert!(
        again <= KILLS * 10,
        "{again} calls of {} were made once more: only what a killed node had in hand may be",
        came.len()
    );
    doomed.crash();
    Box::pin(node.stop()).await;
    world.start_node().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_schedule_is_refused_and_what_is_removed_is_made_again() {
    let mut world = World::start(json!({})).await;
    let seen = world.seen().await;
    for (trigger, expected) in [
        ("at:2001-01-01T00:00:00Z", "at:2001-01-01T00:00:00Z is over"),
        ("cron:0 7 * * *?tz=Nowhere/Atall", "JetStream refuses a schedule"),
    ] {
        let refusal = world.refused(&teller(&world, &[trigger]).await).await;
        assert!(refusal.message.contains(expected), "{trigger}: {refusal:?}");
    }
    let started = world.deploy(&teller(&world, &["every:1s"]).await).await;
    until("it is called", || seen.count("every:1s") >= 1).await;
    world.jetstream().delete_stream("NEX_SCHEDULES_default").await.unwrap();
    let before = seen.count("every:1s");
    until("it is called again", || seen.count("every:1s") >= before + 2).await;
    world.stop_workload(&started).await;
    let gone = seen.all();
    tokio::time::timeout(Duration::from_millis(2_500), until("it is called no more", || seen.all() > gone + 1))
        .await
        .unwrap_err();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_may_have_more_schedules_than_a_stream_has_consumers_by_itself() {
    let mut world = World::start(json!({})).await;
    let started = world.deploy(&teller(&world, &["every:1h"]).await).await;
    let stream = world.jetstream().get_stream("NEX_SCHEDULES_default").await.unwrap();
    // From nats-server 2.15 on, a stream that does not say more has a thousand.
    let consumer = |number: usize| pull::Config {
        durable_name: Some(format!("other-{number}")),
        filter_subject: format!("$NEX.fire.default.other-{number}"),
        ..pull::Config::default()
    };
    for number in 0..1_000 {
        stream.create_consumer(consumer(number)).await.unwrap();
    }
    let more = world.deploy(&teller(&world, &["every:1h", "every:2h"]).await).await;
    assert_eq!(stream.get_info().await.unwrap().state.consumer_count, 1_002);
    world.stop_workload(&started).await;
    world.stop_workload(&more).await;
    world.stop().await;
}

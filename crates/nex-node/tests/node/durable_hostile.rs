//! Durable triggers and those who mean no good, or know no better: streams of others, streams and consumers that vanish, full dead letters.

use async_nats::jetstream::stream;
use nex_bus::settings::ConnectionSettings;
use nex_client::deploy::Deployment;
use nex_protocol::envelope::ErrorCode;
use nex_testkit::{NatsOptions, NatsServer};
use serde_json::json;

use crate::durable::{durable, until};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_may_not_read_is_refused_before_anything_runs() {
    let mut world = World::start(json!({"deny_trigger_subjects": ["secret.>"]})).await;
    world.stream("AUDIT", "$NEX.audit.>").await;
    world.stream("SECRET", "secret.*").await;
    let queue = stream::Config {
        name: "QUEUE".into(),
        subjects: vec!["queue".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    world.jetstream().create_stream(queue).await.unwrap();
    let sayer = world.sayer("sayer", &[]).await;
    let refused = async |triggers: &[&str]| {
        let durable = triggers.iter().map(|text| durable(text)).collect();
        world.refused(&Deployment { durable, ..sayer.clone() }).await
    };
    for (trigger, code, expected) in [
        ("stream:NOWHERE", ErrorCode::Failed, "there is no stream NOWHERE"),
        ("kv:NOWHERE", ErrorCode::Failed, "there is no stream KV_NOWHERE"),
        ("stream:AUDIT", ErrorCode::Denied, "$NEX.audit.>"),
        ("stream:SECRET", ErrorCode::Denied, "secret.*"),
        ("stream:SECRET?filter=secret.x", ErrorCode::Denied, "deny list"),
        ("stream:AUDIT?filter=$NEX.events.>", ErrorCode::Denied, "deny list"),
        ("stream:NEX_DEAD_other?dead=none", ErrorCode::Denied, "another"),
        ("stream:OBJ_NEXCLIFILES", ErrorCode::BadRequest, "object:BUCKET"),
        ("object:NEXCLIFILES", ErrorCode::Denied, "another"),
    ] {
        let refusal = refused(&[trigger]).await;
        assert!(refusal.code == code && refusal.message.contains(expected), "{trigger}: {refusal:?}");
    }
    let refusal = refused(&["stream:QUEUE", "stream:NOWHERE"]).await;
    assert!(refusal.message.contains("NOWHERE"), "{refusal:?}");
    let mut queue = world.jetstream().get_stream("QUEUE").await.unwrap();
    assert_eq!(queue.info().await.unwrap().state.consumer_count, 0, "what was made for it is gone");
    // A work queue has one reader.
    world.deploy(&Deployment { durable: vec![durable("stream:QUEUE")], ..sayer.clone() }).await;
    let other = Deployment { durable: vec![durable("stream:QUEUE")], name: "other".parse().unwrap(), ..sayer.clone() };
    let refusal = world.refused(&other).await;
    assert!(refusal.message.contains("JetStream refuses a consumer"), "{refusal:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_under_a_trigger_is_said_and_made_again_and_no_message_is_lost() {
    let mut world = World::start(json!({})).await;
    let seen = world.seen().await;
    let stream = world.stream("ORDERS", "orders").await;
    let started = world.deploy(&world.sayer("sayer", &["stream:ORDERS"]).await).await;
    world.put("orders", (0..5).map(|number| format!("first {number}"))).await;
    until("the first are handled", || seen.different() == 5).await;
    let consumer = world.trigger(&started).await.consumer;
    stream.delete_consumer(&consumer).await.unwrap();
    world.put("orders", (0..5).map(|number| format!("second {number}"))).await;
    until("the consumer is made again, and reads on", || seen.different() == 10).await;
    world.jetstream().delete_stream("ORDERS").await.unwrap();
    world
        .until_trigger(&started, "it is said that the stream is gone", |it| {
            it.state == "failing" && it.last_error.as_deref().is_some_and(|error| error.contains("there is no stream ORDERS"))
        })
        .await;
    world.until("its deployer is told", |it| it.has_logged("there is no stream ORDERS")).await;
    world.stream("ORDERS", "orders").await;
    world.put("orders", (0..5).map(|number| format!("third {number}"))).await;
    until("the new stream is read from its beginning", || seen.different() == 15).await;
    world.until_trigger(&started, "it is served", |it| it.state == "active").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_letters_do_not_take_is_not_given_up() {
    let mut world = World::start(json!({})).await;
    let seen = world.seen().await;
    world.stream("ORDERS", "orders").await;
    let letters = stream::Config {
        name: "NEX_DEAD_default".into(),
        subjects: vec!["$NEX.dead.default.>".into()],
        max_messages: 1,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    world.jetstream().create_stream(letters).await.unwrap();
    let started = world.deploy(&world.sayer("sayer", &["stream:ORDERS?max-deliver=1"]).await).await;
    world.put("orders", ["bad 1".to_owned(), "bad 2".to_owned()].into_iter()).await;
    until("both have failed", || seen.different() == 2).await;
    world.until_trigger(&started, "one is given up", |it| it.dead == 1).await;
    world.until("it is said of the other why not", |it| it.has_logged("cannot be kept as a dead letter")).await;
    world.until_trigger(&started, "it is not lost", |it| it.unacknowledged == 1).await;
    assert_eq!(world.dead_letters().await.len(), 1);
    world.stop().await;
}

/// A node whose user may do everything but publish to these subjects, with a stream and a function on it.
pub(crate) async fn without(denied: &str) -> World {
    let user = format!("{{ user: me, password: secret, permissions: {{ publish: {{ deny: ['{denied}'] }} }} }}");
    // Services have none of its rights.
    let config = format!("authorization {{ users: [{user}, {{ user: guest, password: guest }}] }}\nno_auth_user: guest\n");
    let nats = NatsServer::start_with(NatsOptions { config, ..NatsOptions::default() }).await;
    let connection = ConnectionSettings {
        user: Some("me".into()),
        password: Some("secret".into()),
        ..ConnectionSettings::to_servers(&nats.url())
    };
    let world = World::start_on(nats, connection, json!({})).await;
    world.stream("ORDERS", "orders").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_nodes_user_may_not_do_is_said_by_its_subject() {
    for denied in ["$JS.API.STREAM.INFO.ORDERS", "$JS.API.CONSUMER.CREATE.ORDERS.>", "$JS.API.STREAM.CREATE.NEX_DEAD_default"] {
        let mut world = without(denied).await;
        let refusal = world.refused(&world.sayer("sayer", &["stream:ORDERS"]).await).await;
        let literal = denied.trim_end_matches(['*', '>']);
        assert!(refusal.code == ErrorCode::Denied && refusal.message.contains(literal), "{denied}: {refusal:?}");
        world.stop().await;
    }
    for denied in ["$JS.API.CONSUMER.MSG.NEXT.ORDERS.*", "$JS.ACK.>"] {
        let mut world = without(denied).await;
        let started = world.deploy(&world.sayer("sayer", &["stream:ORDERS"]).await).await;
        world.put("orders", ["one".to_owned()].into_iter()).await;
        let literal = denied.trim_end_matches(['*', '>']);
        world
            .until_trigger(&started, "it is said", |it| {
                it.state == "failing" && it.last_error.as_deref().is_some_and(|error| error.contains(literal))
            })
            .await;
        world.stop().await;
    }
}

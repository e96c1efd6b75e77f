//! `messaging`

use std::time::Duration;

use async_nats::Client;
use futures::StreamExt as _;
use nex_testkit::NatsServer;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::{Caller, config, settled};

/// Answers every request on a subject with the given text and what it got.
async fn answering(nats: &Client, subject: &'static str, text: &'static str) -> JoinSet<()> {
    let mut requests = nats.subscribe(subject).await.unwrap();
    settled(nats).await;
    let nats = nats.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(request) = requests.next().await {
            let body = [text.as_bytes(), &request.payload].concat();
            nats.publish(request.reply.unwrap(), body.into()).await.unwrap();
        }
    });
    tasks
}

#[tokio::test]
async fn a_message_is_published_and_a_request_answered() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let nats = server.client().await;
    let mut heard = nats.subscribe("news.>").await.unwrap();
    settled(&nats).await;
    assert_eq!(caller.json("messaging.publish", "news.today", [0, 255]).await, json!({"success": true}));
    let message = timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap();
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("news.today", &[0, 255][..]));

    let _service = answering(&nats, "service", "got ").await;
    assert_eq!(caller.call("messaging.request", "service", "this").await.unwrap(), "got this");
}

#[tokio::test]
async fn a_message_has_the_headers_it_is_given_and_none_that_are_reserved() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let nats = server.client().await;
    let mut heard = nats.subscribe("news").await.unwrap();
    settled(&nats).await;
    let lines = ["Nats-Msg-Id: 7", "X-Two: a", "X-Two: b: c", "Nex-Outcome: reply"];
    caller.with("messaging.publish", "news", "", &lines).await.unwrap();
    let headers = timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap().headers.unwrap();
    assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "7");
    assert_eq!(headers.get_all("X-Two").map(async_nats::HeaderValue::as_str).collect::<Vec<_>>(), ["a", "b: c"]);
    assert_eq!(headers.len(), 2, "{headers:?}");
    let many = vec!["X: y"; 65];
    assert_eq!(caller.with("messaging.publish", "news", "", &many).await.unwrap_err().code, 400);
    assert_eq!(caller.with("messaging.publish", "news", "", &["no value"]).await.unwrap_err().code, 400);
}

#[tokio::test]
async fn a_request_waits_its_milliseconds_and_says_why_it_failed() {
    let server = NatsServer::start().await;
    let settings = json!({"request_timeout_ms": 40});
    let caller = Caller::new(server.client().await, config("messaging", true, settings));
    let (code, text) = caller.refused("messaging.request", "nobody", "").await;
    assert!(code == 503 && text.contains("nobody answers on nobody"), "{text}");

    let nats = server.client().await;
    let _silent = nats.subscribe("silent").await.unwrap();
    settled(&nats).await;
    let begun = Instant::now();
    let (code, text) = caller.refused("messaging.request", "silent", "").await;
    assert!(code == 504 && text.contains("within 40 ms"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(4), "milliseconds, not seconds: {:?}", begun.elapsed());
}

#[tokio::test]
async fn many_replies_are_collected() {
    let server = NatsServer::start().await;
    let settings = json!({"request_many_timeout_ms": 300});
    let caller = Caller::new(server.client().await, config("messaging", true, settings));
    let nats = server.client().await;
    let _services = [answering(&nats, "survey", "a").await, answering(&nats, "survey", "b").await];
    let mut replies: Vec<String> = serde_json::from_value(caller.json("messaging.requestMany", "survey", "?").await).unwrap();
    replies.sort();
    assert_eq!(replies, ["YT8=", "Yj8="], "base64 of a? and b?");
    assert_eq!(caller.refused("messaging.requestMany", "nobody", "").await.0, 503);

    let _silent = nats.subscribe("silent").await.unwrap();
    settled(&nats).await;
    assert_eq!(caller.json("messaging.requestMany", "silent", "").await, json!([]));
}

#[tokio::test]
async fn more_than_a_hundred_replies_are_not_waited_for() {
    let server = NatsServer::start().await;
    let settings = json!({"request_many_timeout_ms": 60_000});
    let caller = Caller::new(server.client().await, config("messaging", true, settings));
    let nats = server.client().await;
    let mut requests = nats.subscribe("flood").await.unwrap();
    settled(&nats).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let reply = requests.next().await.unwrap().reply.unwrap();
        for _ in 0..150 {
            nats.publish(reply.clone(), "x".into()).await.unwrap();
        }
        nats.flush().await.unwrap();
    });
    let replies = timeout(Duration::from_secs(10), caller.json("messaging.requestMany", "flood", "")).await.unwrap();
    assert_eq!(replies.as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn the_machinery_is_not_spoken_to() {
    let server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    let subjects = ["$SYS.REQ.SERVER.PING", "$JS.API.INFO", "$NEX.PING", "_INBOX.a.b", "$KV.hs_default_other_kv.key"];
    for subject in subjects {
        for what in ["messaging.publish", "messaging.request", "messaging.requestMany"] {
            let (code, text) = caller.refused(what, subject, "").await;
            assert!(code == 403 && text.contains("belongs to the system"), "{what} {subject}: {text}");
        }
    }
    assert_eq!(caller.refused("messaging.publish", "", "x").await, (400, "subject is required".to_owned()));
    assert_eq!(caller.refused("messaging.publish", "a.*", "x").await.0, 400);
    let (code, text) = caller.refused("messaging.publish", "a", vec![0; 1024 * 1024 + 1]).await;
    assert!(code == 413 && text.contains("at most 1048576"), "{text}");
}

#[tokio::test]
async fn a_lost_connection_is_not_called_success() {
    let mut server = NatsServer::start().await;
    let caller = Caller::of(&server).await;
    caller.call("messaging.publish", "a", "x").await.unwrap();
    server.kill9();
    let noticed = nex_testkit::eventually(Duration::from_secs(10), async || {
        caller.call("messaging.publish", "a", "x").await.is_err_and(|error| error.code == 503)
    });
    assert!(noticed.await, "the loss is told");
}

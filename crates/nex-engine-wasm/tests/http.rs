//! `wasi:http`: components that answer requests, however they are asked, and ask others; and what comes of those that misuse it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Fixture, call, fixture};
use futures::future::BoxFuture;
use nex_engine::{Call, CallError, Function, HostClient, Reply, Streamed, streaming};
use nex_engine_wasm::{Engine, EngineConfig, WasmFunction};
use nex_protocol::host::{HostError, HostRequest, HttpReply, Service};
use nex_testkit::guest::{HTTP_WIT, IO_WIT, WEB_WAT, WEB_WORLD, component};
use tokio::sync::Notify;

const MESSAGING: &str = include_str!("../wit/messaging/messaging.wit");
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The other side of what an instance asks.
#[derive(Default)]
struct Outside {
    asked: Mutex<Vec<HostRequest>>,
    /// What `e-…` waits for.
    gate: Notify,
}

impl Outside {
    fn answer(&self, request: HostRequest) -> Result<Bytes, HostError> {
        assert_eq!(request.service, Service::Http);
        let answer = match request.target.rsplit('/').next().unwrap_or_default() {
            "g-denied" => Err(HostError { code: 403, message: "denied.example is not allowed".into() }),
            "g-large" => Err(HostError { code: 413, message: "too large".into() }),
            "g-slow" => Err(HostError { code: 504, message: "too slow".into() }),
            "g-down" => Err(HostError { code: 502, message: "it is down".into() }),
            "g-damaged" => Ok(Bytes::from_static(b"{")),
            "g-17mib" => Ok(vec![b'x'; 17 << 20]).map(|body| reply(200, &body)),
            _ => Ok(reply(404, &[b"heard ", &request.body[..]].concat())),
        };
        self.asked.lock().unwrap().push(request);
        answer
    }
}

fn reply(status: u16, body: &[u8]) -> Bytes {
    let headers = BTreeMap::from([("Content-Type".to_owned(), vec!["text/plain".to_owned()])]);
    serde_json::to_vec(&HttpReply::new(status, headers, body)).unwrap().into()
}

impl HostClient for Outside {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        let waits = request.target.contains("/e-");
        let answer = self.answer(request);
        Box::pin(async move {
            if waits {
                self.gate.notified().await;
            }
            answer
        })
    }
}

/// The guest as a component of this version of WASI.
fn guest(version: &str) -> Vec<u8> {
    let of = |text: &str| text.replace("@0.2.0", &format!("@{version}"));
    component(&of(WEB_WAT), &[&of(IO_WIT), &of(HTTP_WIT)], &of(WEB_WORLD))
}

async fn start(artifact: &[u8], change: impl FnOnce(&mut Fixture)) -> (WasmFunction, Arc<Outside>, Fixture) {
    let (mut fixture, outside) = (fixture(artifact), Arc::new(Outside::default()));
    fixture.launch.host = Arc::clone(&outside) as _;
    change(&mut fixture);
    let engine = Engine::new(EngineConfig { instances: 8 });
    (engine.start(fixture.launch.clone()).await.unwrap().function, outside, fixture)
}

/// A request as a node's listener publishes it.
fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Call {
    let mut call = call(body);
    for (name, value) in
        [("Nex-Http-Method", method), ("Nex-Http-Path", path), ("Nex-Http-Scheme", "https"), ("host", "shop.example:8443")]
    {
        call.headers.push((name.into(), value.into()));
    }
    call
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.payload).unwrap()
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn a_request_comes_with_its_url_headers_and_body_and_its_response_goes_back_whole() {
    for version in ["0.2.0", "0.2.3", "0.2.12"] {
        let (function, _outside, _fixture) = start(&guest(version), |_| ()).await;
        let mut asked = request("PUT", "/orders/4%202?a=b", vec![b'y'; 20_000]);
        asked.headers.push(("X-Asked".into(), "väl".into()));
        asked.headers.push(("Content-Length".into(), "3".into()));
        let answered = function.invoke(asked).await.unwrap();
        let expected = format!("31 shop.example:8443 /orders/4%202?a=b väl {}", "y".repeat(20_000));
        assert_eq!(text(&answered), expected, "{version}");
        assert_eq!((header(&answered, "Nex-Http-Status"), header(&answered, "X-Mine")), (Some("201"), Some("guest")));
    }
}

#[tokio::test]
async fn a_message_is_a_request_to_its_subject_and_a_failure_is_a_failed_call() {
    let (function, _outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let answered = function.invoke(call("body")).await.unwrap();
    assert_eq!(text(&answered), "22 some.subject /  body", "POST nats://some.subject/");
    assert_eq!((header(&answered, "Nex-Http-Status"), header(&answered, "X-Mine")), (None, Some("guest")));
    let mut asked = call("");
    asked.headers = vec![("nex-http-method".into(), "get".into()), ("nex-http-path".into(), "s".into())];
    let refused = CallError::Refused { code: 404, message: "denied".into() };
    assert_eq!(function.invoke(asked.clone()).await, Err(refused));
    asked.headers[1].1 = "a b\u{7f}".into();
    assert!(matches!(function.invoke(asked.clone()).await, Err(CallError::Refused { code: 400, .. })));
    asked.headers[0].1 = "no method".into();
    assert!(matches!(function.invoke(asked).await, Err(CallError::Refused { code: 400, .. })));
    let http = function.invoke(request("GET", "/s", "")).await.unwrap();
    assert_eq!((text(&http), header(&http, "Nex-Http-Status")), ("denied", Some("404")));
}

#[tokio::test]
async fn a_handler_that_answers_wrongly_fails_its_call_and_the_next_is_served() {
    let limit = Duration::from_millis(300);
    let (function, _outside, _fixture) = start(&guest("0.2.0"), |fixture| fixture.launch.limits.call_time = limit).await;
    for (path, expected) in [
        ("/never", "returned without a response"),
        ("/x-error", "ConfigurationError"),
        ("/twice", "handle"),
        ("/head-then-trap", "unreachable"),
        ("/broken-body", "gave up the body"),
        ("/informational", "status 101"),
    ] {
        for asked in [request("GET", path, ""), Call { headers: vec![("Nex-Http-Path".into(), path.into())], ..call("") }] {
            match function.invoke(asked).await {
                Err(CallError::Failed(why)) => assert!(why.contains(expected), "{path}: {why}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        assert_eq!(text(&function.invoke(request("GET", "/", "again")).await.unwrap()), "01 shop.example:8443 /  again");
    }
    assert_eq!(function.invoke(request("GET", "/wait", "")).await, Err(CallError::Timeout(limit)));
    assert_eq!(text(&function.invoke(request("GET", "/left", "")).await.unwrap()), "l");
}

#[tokio::test]
async fn a_response_over_the_limit_is_an_error_with_its_size() {
    let (function, _outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let expected = CallError::ReplyTooLarge { actual: 300_000, limit: 256 * 1024 };
    assert_eq!(function.invoke(request("GET", "/many", "")).await, Err(expected));
    let (roomy, _outside, _fixture) = start(&guest("0.2.0"), |fixture| fixture.launch.limits.reply_bytes = 300_000).await;
    assert_eq!(roomy.invoke(request("GET", "/many", "")).await.unwrap().payload.len(), 300_000);
}

#[tokio::test]
async fn what_it_asks_goes_to_the_host_service_with_method_headers_and_body() {
    let (function, outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    assert_eq!(text(&function.invoke(request("GET", "/g/a?b=1", "")).await.unwrap()), "4heard ");
    assert_eq!(
        text(&function.invoke(request("POST", "/p", vec![b'z'; 30_000])).await.unwrap()),
        format!("4heard {}", "z".repeat(30_000))
    );
    let asked = outside.asked.lock().unwrap();
    let seen: Vec<_> = asked.iter().map(|one| (one.method.as_str(), one.target.as_str(), one.body.len())).collect();
    assert_eq!(seen, [("get", "http://denied.example/g/a?b=1", 0), ("post", "http://denied.example/p", 30_000)]);
    assert_eq!(asked[0].headers, [("user-agent".to_owned(), "guest".to_owned())]);
}

#[tokio::test]
async fn what_it_asks_has_the_trace_of_its_call() {
    let (function, outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let mut asked = request("GET", "/g", "");
    asked.headers.extend([("Traceparent".into(), PARENT.into()), ("tracestate".into(), "a=1".into())]);
    function.invoke(asked).await.unwrap();
    let mut sent = outside.asked.lock().unwrap()[0].headers.clone();
    sent.sort();
    let expected = [("traceparent", PARENT), ("tracestate", "a=1"), ("user-agent", "guest")];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn what_the_host_service_refuses_is_the_guests_to_hear() {
    let (function, _outside, mut fixture) = start(&guest("0.2.0"), |_| ()).await;
    // A letter for the number of an error in `error-code`.
    for (path, code) in
        [("/g-denied", 15_u8), ("/g-large", 28), ("/g-slow", 33), ("/g-down", 38), ("/g-damaged", 38), ("/g-17mib", 28)]
    {
        let answered = function.invoke(request("GET", path, "")).await.unwrap();
        assert_eq!(answered.payload, &[b'0' + code][..], "{path}");
    }
    let line = fixture.lines.try_recv().unwrap();
    assert!(line.text.contains("denied.example is not allowed"), "{}", line.text);
    let with_body = function.invoke(request("DELETE", "/d", "body")).await.unwrap();
    assert_eq!(with_body.payload, &[b'0' + 38][..], "the host service sends no body with it");
}

#[tokio::test]
async fn a_body_beyond_what_the_bus_takes_is_not_sent() {
    let (function, outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let answered = function.invoke(request("POST", "/p", vec![0; (7 << 20) + 1])).await;
    // Either the write fails in the guest, or the request: it is the host's to choose.
    match answered {
        Ok(reply) => assert_eq!(reply.payload, &[b'0' + 17][..]),
        Err(error) => assert!(matches!(error, CallError::Failed(_)), "{error}"),
    }
    assert!(outside.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn requests_are_host_calls_and_a_flood_of_them_is_ended() {
    let (function, outside, _fixture) = start(&guest("0.2.0"), |fixture| fixture.launch.limits.host_calls = Some(20)).await;
    assert_eq!(function.invoke(request("GET", "/flood", "")).await, Err(CallError::TooManyHostCalls(20)));
    assert!(outside.asked.lock().unwrap().len() <= 20);
    assert_eq!(text(&function.invoke(request("GET", "/g", "")).await.unwrap()), "4heard ");
    // Without that limit, what the host keeps for an instance ends it.
    let (function, _outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let flooded = function.invoke(request("GET", "/flood", "")).await.unwrap_err();
    assert!(flooded.to_string().contains("table"), "{flooded}");
}

#[tokio::test]
async fn a_component_with_both_handlers_has_requests_by_one_and_messages_by_the_other() {
    let both = WEB_WAT.replace(
        "  (func (export \"wasi:http",
        "  (func (export \"wasmcloud:messaging/handler@0.2.0#handle-message\") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
             (i32.store8 (i32.const 2048) (i32.const 0)) (i32.const 2048))\n  (func (export \"wasi:http",
    );
    let world = WEB_WORLD.replace('}', "  export wasmcloud:messaging/handler@0.2.0;\n}");
    let artifact = component(&both, &[IO_WIT, HTTP_WIT, MESSAGING], &world);
    let (function, _outside, _fixture) = start(&artifact, |_| ()).await;
    assert_eq!(text(&function.invoke(call("message")).await.unwrap()), "");
    assert_eq!(text(&function.invoke(request("GET", "/", "it")).await.unwrap()), "01 shop.example:8443 /  it");
}

/// A request whose response is taken piece by piece.
fn pulling(path: &str) -> (Call, Streamed) {
    let (streaming, streamed) = streaming();
    (Call { streaming: Some(streaming), ..request("GET", path, "") }, streamed)
}

#[tokio::test]
async fn a_response_that_is_not_there_a_moment_after_its_head_is_sent_piece_by_piece() {
    let (function, outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let (call, mut streamed) = pulling("/e-events");
    let taken = async {
        let head = (&mut streamed.head).await.unwrap();
        assert!(head.contains(&("X-Mine".into(), "guest".into())) && head.contains(&("Nex-Http-Status".into(), "200".into())));
        assert_eq!(streamed.pieces.recv().await.unwrap(), "1");
        assert!(streamed.pieces.try_recv().is_err());
        outside.gate.notify_one();
        assert_eq!(streamed.pieces.recv().await.unwrap(), "2");
    };
    let (done, ()) = tokio::join!(function.invoke(call), taken);
    assert_eq!(done.unwrap().payload.len(), 0);
    // Whoever does not take pieces has it whole.
    outside.gate.notify_one();
    assert_eq!(text(&function.invoke(request("GET", "/e-events", "")).await.unwrap()), "12");
}

#[tokio::test]
async fn a_large_response_is_sent_piece_by_piece_and_a_small_or_failed_one_is_whole() {
    let (function, _outside, _fixture) = start(&guest("0.2.0"), |_| ()).await;
    let (call, mut streamed) = pulling("/many");
    let taken = async {
        (&mut streamed.head).await.unwrap();
        let mut bytes = 0;
        while bytes < 300_000 {
            bytes += streamed.pieces.recv().await.unwrap().len();
        }
        bytes
    };
    let (done, bytes) = tokio::join!(function.invoke(call), taken);
    assert_eq!((done.unwrap().payload.len(), bytes), (0, 300_000), "more than a reply may have");
    for (path, expected) in
        [("/left", Ok("l")), ("/s", Ok("denied")), ("/head-then-trap", Err("unreachable")), ("/broken", Err("gave up"))]
    {
        let (call, mut streamed) = pulling(path);
        let done = function.invoke(call).await;
        match (done, expected) {
            (Ok(whole), Ok(expected)) => assert_eq!(text(&whole), expected, "{path}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{path}: {error}"),
            (done, _) => panic!("{path}: {done:?}"),
        }
        assert!(streamed.head.try_recv().is_err(), "{path}");
    }
}

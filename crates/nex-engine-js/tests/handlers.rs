//! The forms of a function that answers requests: what it is asked, and what its caller gets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::time::Duration;

use common::{call, fixture};
use nex_engine::{Call, CallError, Function, Reply, Stream, Streamed, streaming};
use nex_engine_js::{JsFunction, prepare};

async fn started(source: &str) -> JsFunction {
    nex_engine_js::start(fixture(source).launch, prepare()).await.unwrap()
}

fn with_headers(payload: &str, headers: &[(&str, &str)]) -> Call {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Call { headers, ..call(payload.to_owned()) }
}

async fn text(function: &JsFunction, call: Call) -> String {
    String::from_utf8(function.invoke(call).await.unwrap().payload.to_vec()).unwrap()
}

#[tokio::test]
async fn a_message_becomes_a_request_and_the_response_the_reply() {
    let source = "export default { async fetch(request, env, ctx) {
        const url = new URL(request.url);
        const body = request.method === 'GET' ? null : await request.text();
        return Response.json({ method: request.method, url: request.url, path: url.pathname, q: url.searchParams.get('q'), body,
            x: request.headers.get('X-MANY'), name: env.Name, ctx: typeof ctx.waitUntil }, { headers: { 'x-mine': 'yes' } });
    } }";
    let function = started(source).await;
    let reply = function.invoke(with_headers("pay", &[("x-many", "1"), ("X-Many", "2")])).await.unwrap();
    let expected = r#"{"method":"POST","url":"nats://some.subject/","path":"/","q":null,"body":"pay","x":"1, 2","name":"väl","ctx":"function"}"#;
    assert_eq!(std::str::from_utf8(&reply.payload), Ok(expected));
    let headers =
        [("Content-Type", "application/json"), ("X-Mine", "yes")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(reply.headers, headers);
    let example = started(include_str!("../../../examples/functions/web.mjs")).await;
    assert_eq!(text(&example, call("hi")).await, r#"{"method":"POST","body":"hi"}"#);
    let missing = CallError::Refused { code: 404, message: "no such page: /a".to_owned() };
    assert_eq!(example.invoke(with_headers("", &[("Nex-Http-Path", "/a")])).await, Err(missing));
    let typescript = started(include_str!("../../../examples/functions/order.ts")).await;
    assert_eq!(text(&typescript, call(r#"{"item":"pen","quantity":2}"#)).await, r#"{"item":"pen","quantity":2,"total":6}"#);
    let asked = text(&function, with_headers("", &[("Nex-Http-Method", "get"), ("nex-http-path", "/a/b?q=%C3%A9")])).await;
    assert!(
        asked.contains(r#""method":"GET","url":"nats://some.subject/a/b?q=%C3%A9","path":"/a/b","q":"é","body":null"#),
        "{asked}"
    );
}

#[tokio::test]
async fn every_body_is_sent_and_headers_end_with_their_call() {
    for (body, expected) in [
        ("'text'", "text"),
        ("new Uint8Array([104, 105])", "hi"),
        ("new Blob(['a', new Uint8Array([98])])", "ab"),
        ("new URLSearchParams({ a: '1 2' })", "a=1+2"),
        ("ReadableStream.from([new Uint8Array([97]), new Uint8Array([98])])", "ab"),
        ("null", ""),
        ("request.body", "pay"),
        ("await request.arrayBuffer()", "pay"),
        ("JSON.stringify(await new Response(form).formData().then((f) => [...f]))", r#"[["a","1"],["b","2"]]"#),
    ] {
        let source = format!(
            "export default {{ async fetch(request) {{ const form = new FormData(); form.append('a', '1'); form.append('b', '2');
                return new Response({body}) }} }}"
        );
        assert_eq!(text(&started(&source).await, call("pay")).await, expected, "{body}");
    }
    let source = "export default { async fetch(request) { return new Response('x', { headers: { 'x-len': request.headers.get('n') ?? 'none' } }) } }";
    let function = started(source).await;
    for (headers, expected) in [(&[("n", "1")][..], "1"), (&[], "none")] {
        let reply = function.invoke(with_headers("", headers)).await.unwrap();
        assert!(reply.headers.contains(&("X-Len".into(), expected.into())), "{reply:?}");
    }
}

#[tokio::test]
async fn a_status_of_failure_is_refused_with_its_code() {
    for (response, code, message) in [
        ("new Response('no such thing', { status: 404 })", 404, "no such thing"),
        ("new Response(null, { status: 418, statusText: 'teapot' })", 418, "teapot"),
        ("new Response(null, { status: 503 })", 503, "status 503"),
        ("Response.json({ why: 1 }, { status: 400 })", 400, r#"{"why":1}"#),
    ] {
        let function = started(&format!("export default {{ fetch: () => {response} }}")).await;
        let refused = CallError::Refused { code, message: message.to_owned() };
        assert_eq!(function.invoke(call("")).await, Err(refused), "{response}");
    }
    for (body, expected) in [
        ("fetch() { return 'text' }", "TypeError: fetch returned no Response"),
        ("fetch() { throw new Error('mine') }", "Error: mine at fetch (guest.js:1:"),
        ("async fetch(r) { await r.text(); await r.text() }", "TypeError: the body was read already"),
        ("fetch: () => new Promise(() => {})", "nothing can settle"),
    ] {
        let error = started(&format!("export default {{ {body} }}")).await.invoke(call("")).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(text) if text.contains(expected)), "{body}: {error}");
    }
    let many = "export default { fetch() { const r = new Response(); for (let i = 0; i < 200; i++) r.headers.append('x' + i, 'y'); return r } }";
    let error = started(many).await.invoke(call("")).await.unwrap_err().to_string();
    assert!(error.contains("more than 128 headers"), "{error}");
}

#[tokio::test]
async fn the_reply_waits_for_what_was_promised_and_no_longer_than_the_call() {
    let mut fixture = fixture(
        "export default { fetch(request, env, ctx) { ctx.waitUntil(new Promise((done) => setTimeout(() => { console.log('after'); done() }, 5)));
            ctx.waitUntil(Promise.reject(new Error('told'))); return new Response('sent') } }",
    );
    let function = nex_engine_js::start(fixture.launch.clone(), prepare()).await.unwrap();
    assert_eq!(function.invoke(call("")).await.unwrap().payload, "sent");
    let first = fixture.lines.recv().await.unwrap();
    assert_eq!((first.stream, first.text.as_str()), (Stream::Stdout, "after"));
    assert!(fixture.lines.recv().await.unwrap().text.starts_with("Error: told"));

    let mut slow = common::fixture(
        "export default { fetch(r, e, ctx) { ctx.waitUntil(new Promise((d) => setTimeout(d, 1e6))); return new Response() } }",
    );
    slow.launch.limits.call_time = Duration::from_millis(100);
    let limit = slow.launch.limits.call_time;
    let function = nex_engine_js::start(slow.launch, prepare()).await.unwrap();
    assert_eq!(function.invoke(call("")).await, Err(CallError::Timeout(limit)));
}

#[tokio::test]
async fn the_forms_of_a_function_are_interchangeable() {
    for source in [
        "(subject, payload) => payload",
        "export default (subject, payload) => payload",
        "export default function (subject, payload) { return payload }",
        "export default async function named(subject, payload) { return payload }",
        "const handler = (s, p) => p;\nexport { handler as default };",
        "export default { async fetch(request) { return new Response(await request.bytes()) } }",
        "const app = { fetch: (request) => new Response(request.body) };\nexport { app as default };",
        "class App { #reply = (body) => new Response(body); fetch(request) { return this.#reply(request.body) } }\nexport default new App()",
        "({ fetch: (request) => new Response(request.body) })",
    ] {
        let reply = started(source).await.invoke(call("pay")).await;
        assert_eq!(reply, Ok(Reply::from("pay")), "{source}");
    }
}

#[tokio::test]
async fn what_one_call_does_to_the_interfaces_is_not_seen_by_the_next() {
    let source = "export default { async fetch(request) {
        const was = [({}).polluted, Response.prototype.stolen, typeof URL, request.headers.get('x')].join();
        Object.prototype.polluted = 1; Response.prototype.stolen = 1; Headers.prototype.get = () => 'forged'; globalThis.URL = 5;
        JSON.parse = () => []; setInterval(() => {}, 1); return new Response(was) } }";
    let function = started(source).await;
    for _ in 0..20 {
        assert_eq!(text(&function, with_headers("", &[("x", "mine")])).await, ",,function,mine");
    }
}

/// A request of HTTP whose response is taken piece by piece.
fn pulling() -> (Call, Streamed) {
    let (streaming, streamed) = streaming();
    let asked = [("Nex-Http-Method", "GET"), ("Nex-Http-Path", "/"), ("Nex-Http-Scheme", "http")];
    (Call { streaming: Some(streaming), ..with_headers("", &asked) }, streamed)
}

const EVENTS: &str = "export default { fetch() {
    let number = 0;
    return new Response(new ReadableStream({ pull(controller) {
        number += 1;
        if (number === 2) hostServices.kv.get('slow');
        controller.enqueue(new TextEncoder().encode('data: ' + number + '\\n\\n'));
    } }), { status: 202, headers: { 'content-type': 'text/event-stream' } });
} }";

#[tokio::test]
async fn the_first_piece_is_sent_before_the_second_is_made() {
    let function = started(EVENTS).await;
    let (call, mut streamed) = pulling();
    let called = function.invoke(call);
    let taken = async {
        let head = (&mut streamed.head).await.unwrap();
        assert!(head.contains(&("Content-Type".into(), "text/event-stream".into())), "{head:?}");
        assert!(head.contains(&("Nex-Http-Status".into(), "202".into())), "{head:?}");
        assert_eq!(streamed.pieces.recv().await.unwrap(), "data: 1\n\n");
    };
    tokio::select! {
        done = called => panic!("it waits for ever, and has answered {done:?}"),
        () = taken => {}
    }
    // Nobody waits for the rest; the next call is served.
    drop(streamed);
    let (call, mut streamed) = pulling();
    let called = function.invoke(call);
    tokio::select! {
        done = called => panic!("it waits for ever, and has answered {done:?}"),
        head = &mut streamed.head => assert_eq!(head.unwrap().len(), 2),
    }
}

#[tokio::test]
async fn pieces_are_all_sent_at_the_pace_of_who_takes_them_and_what_breaks_off_is_a_failed_call() {
    let source = "export default { fetch() { return new Response(ReadableStream.from((async function* () {
        for (let number = 0; number < 500; number++) yield new Uint8Array(1000).fill(number);
    })())) } }";
    let function = started(source).await;
    let (call, mut streamed) = pulling();
    let taken = async {
        (&mut streamed.head).await.unwrap();
        let mut bytes = 0;
        while bytes < 500_000 {
            let piece = streamed.pieces.recv().await.unwrap();
            assert_eq!(usize::from(piece[0]), (bytes / 1000) % 256);
            bytes += piece.len();
        }
        bytes
    };
    let (done, bytes) = tokio::join!(function.invoke(call), taken);
    assert_eq!((done.unwrap().payload.len(), bytes), (0, 500_000), "more than a reply may have");

    let breaking = |at: usize| {
        format!(
            "export default {{ fetch() {{ let n = 0; return new Response(new ReadableStream({{ pull(c) {{
                if (n++ === {at}) throw new Error('it broke');
                c.enqueue(new Uint8Array([65]));
            }} }}, {{ highWaterMark: 0 }})) }} }}"
        )
    };
    for (at, begins) in [(0, false), (1, true)] {
        let function = started(&breaking(at)).await;
        let (call, mut streamed) = pulling();
        let failed = function.invoke(call).await.unwrap_err();
        assert!(failed.to_string().contains("it broke"), "{failed}");
        assert_eq!(streamed.head.try_recv().is_ok(), begins, "until the first piece, the whole call has failed");
    }
    // Whoever does not take pieces has it all at once.
    let mut whole = pulling().0;
    whole.streaming = None;
    let small =
        "export default { fetch() { return new Response(ReadableStream.from([new Uint8Array([65]), new Uint8Array([66])])) } }";
    assert_eq!(text(&started(small).await, whole).await, "AB");
}

//! Every limit of a call is told by its name, and the next call is served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{call, fixture};
use nex_engine::{CallError, Function, Limits};
use nex_engine_js::{JsFunction, prepare};

/// A function under a limit, whose source is chosen by the payload.
const MOODS: &str = "(subject, payload) => { switch (new TextDecoder().decode(payload)) {
    case 'work': for (;;) {}
    case 'sort': { const a = Array.from({ length: 300000 }, (_, i) => (i * 7919) % 300007); for (;;) a.sort().reverse(); }
    case 'ask': { for (let i = 0; i < 100; i++) try { hostServices.kv.get('key') } catch {} return 'asked' }
    case 'fetch': { let n = 0; for (;;) { try { hostServices.http.get('http://a') } catch {} if (++n > 1e6) return n } }
    case 'say': { for (let i = 0; i < 100; i++) try { console.log('0123456789') } catch {} return 'said' }
    case 'shout': console.error('x'.repeat(1000)); return 'shouted';
    case 'wait': return new Promise((done) => setTimeout(done, 60, 'waited'));
    default: hostServices.kv.get('key'); console.log('short'); return 'well' } }";

async fn limited(change: impl FnOnce(&mut Limits)) -> JsFunction {
    let mut fixture = fixture(MOODS);
    fixture.launch.limits.concurrency = 1;
    change(&mut fixture.launch.limits);
    nex_engine_js::start(fixture.launch, prepare()).await.unwrap()
}

async fn fails(function: &JsFunction, mood: &'static str, expected: CallError) {
    assert_eq!(function.invoke(call(mood)).await, Err(expected), "{mood}");
    assert_eq!(function.invoke(call("go")).await, Ok(r#""well""#.into()), "after {mood}");
}

#[tokio::test]
async fn host_calls_are_counted_for_each_call_and_one_too_many_cannot_be_caught() {
    let function = limited(|limits| limits.host_calls = Some(3)).await;
    fails(&function, "ask", CallError::TooManyHostCalls(3)).await;
    fails(&function, "fetch", CallError::TooManyHostCalls(3)).await;
    for _ in 0..5 {
        assert_eq!(function.invoke(call("go")).await, Ok(r#""well""#.into()), "they are counted anew");
    }
    let unlimited = limited(|_| ()).await;
    assert_eq!(unlimited.invoke(call("ask")).await, Ok(r#""asked""#.into()));
}

#[tokio::test]
async fn what_a_call_logs_is_bounded_and_what_is_over_the_limit_is_not_logged() {
    let mut fixture = fixture(MOODS);
    fixture.launch.limits.log_bytes = Some(45);
    let function = nex_engine_js::start(fixture.launch.clone(), prepare()).await.unwrap();
    fails(&function, "say", CallError::LogTooLong(45)).await;
    fails(&function, "shout", CallError::LogTooLong(45)).await;
    let lines: Vec<_> = std::iter::from_fn(|| fixture.lines.try_recv()).map(|line| line.text).collect();
    let lines = lines.iter().filter(|line| line.starts_with("0123") || line.starts_with('x')).count();
    assert_eq!(lines, 4, "as many as fit, and none that is over");
}

#[tokio::test]
async fn processor_time_is_bounded_beside_wall_time() {
    let limit = Duration::from_millis(30);
    let function = limited(|limits| limits.cpu_time = Some(limit)).await;
    let began = Instant::now();
    fails(&function, "work", CallError::CpuTime(limit)).await;
    fails(&function, "sort", CallError::CpuTime(limit)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "long before the call's time: {:?}", began.elapsed());
    assert_eq!(function.invoke(call("wait")).await, Ok(r#""waited""#.into()), "waiting costs none");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_before_the_call() {
    let function = limited(|limits| limits.payload_bytes = Some(4)).await;
    let expected = CallError::PayloadTooLarge { actual: 5, limit: 4 };
    assert_eq!(function.invoke(call("shout")).await, Err(expected));
    assert_eq!(function.invoke(call("four")).await, Ok(r#""well""#.into()));
}

#[tokio::test]
async fn errors_name_their_limits() {
    for (error, name) in [
        (CallError::Timeout(Duration::ZERO), "call_timeout_ms"),
        (CallError::OutOfMemory(1), "memory_mib"),
        (CallError::ReplyTooLarge { actual: 2, limit: 1 }, "reply_bytes"),
        (CallError::PayloadTooLarge { actual: 2, limit: 1 }, "payload_bytes"),
        (CallError::TooManyHostCalls(1), "host_calls"),
        (CallError::LogTooLong(1), "log_bytes"),
        (CallError::CpuTime(Duration::ZERO), "cpu_ms"),
    ] {
        assert!(error.to_string().ends_with(&format!("({name})")), "{error}");
    }
}

#[tokio::test]
async fn a_payload_of_one_mib_is_spread_decoded_and_mapped_without_a_limit_of_the_engine() {
    let payload = Bytes::from((0..1_048_576_u32).map(|index| b'a' + (index % 26) as u8).collect::<Vec<_>>());
    for (body, expected) in [
        ("[...payload].length", "1048576"),
        ("Array.from(payload, (byte) => byte - 97).reduce((a, b) => a + b, 0)", "13107156"),
        ("new TextDecoder().decode(payload).length", "1048576"),
        ("new TextDecoder().decode(payload).split('z').length", "40330"),
        ("[...new TextDecoder().decode(payload)].length", "1048576"),
        ("btoa(new TextDecoder().decode(payload)).length", "1398104"),
        ("new Uint8Array([...payload]).length", "1048576"),
        ("JSON.parse(JSON.stringify(new TextDecoder().decode(payload))).length", "1048576"),
        ("structuredClone(payload).length", "1048576"),
        ("[].concat([...payload], [...payload]).length", "2097152"),
    ] {
        let mut fixture = fixture(format!("(subject, payload) => {body}"));
        fixture.launch.limits.memory_bytes = 128 << 20;
        let function = nex_engine_js::start(fixture.launch, prepare()).await.unwrap();
        assert_eq!(function.invoke(call(payload.clone())).await, Ok(expected.into()), "{body}");
    }
}

//! Wasm functions as an agent calls them: real modules and components, their limits, and what comes after a failure.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{CONTEXT, ECHO, Fixture, MOODS, call, component, fixture, module};
use nex_engine::{CallError, Function, StartError, Stream};
use nex_engine_wasm::{Engine, EngineConfig, Started};
use proptest::prelude::*;

async fn start(artifact: &[u8], change: impl FnOnce(&mut Fixture)) -> (Started, Fixture) {
    let mut fixture = fixture(artifact);
    change(&mut fixture);
    let engine = Engine::new(EngineConfig { instances: 8 });
    (engine.start(fixture.launch.clone()).await.unwrap(), fixture)
}

async fn invalid(artifact: &[u8]) -> String {
    let error = Engine::default().start(fixture(artifact).launch).await.map(|_started| ()).unwrap_err();
    assert!(matches!(error, StartError::Invalid(_)), "{error}");
    error.to_string()
}

/// Every guest twice: as the module it is, and as a component.
fn both(text: &str) -> [Vec<u8>; 2] {
    [module(text), component(text)]
}

#[tokio::test]
async fn the_reply_is_all_of_standard_output() {
    for artifact in both(ECHO) {
        let (started, _fixture) = start(&artifact, |_| ()).await;
        let long: Vec<u8> = (0..200_000_u32).map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
        for payload in [Bytes::new(), Bytes::from("hello"), Bytes::from_static(&[0, 0xff, 0x80]), Bytes::from(long)] {
            assert_eq!(started.function.invoke(call(payload.clone())).await, Ok(payload.into()));
        }
    }
}

#[tokio::test]
async fn a_call_sees_the_subject_and_the_environment_and_its_errors_become_lines() {
    for artifact in both(CONTEXT) {
        let (started, mut fixture) = start(&artifact, |_| ()).await;
        let reply = started.function.invoke(call("")).await.unwrap();
        assert_eq!(std::str::from_utf8(&reply.payload), Ok("nexfunction\0some.subject\0Name=väl\0name=lower\0"));
        let lines: Vec<_> = std::iter::from_fn(|| fixture.lines.try_recv()).map(|line| (line.stream, line.text)).collect();
        assert_eq!(lines, [(Stream::Stderr, "complaint".into()), (Stream::Stderr, "unfinished".into())]);
    }
}

#[tokio::test]
async fn an_exit_code_or_a_trap_is_told_and_the_next_call_is_served() {
    for artifact in both(MOODS) {
        let (started, _fixture) = start(&artifact, |_| ()).await;
        let component = artifact[4] != 1;
        let exits = if component { "function exited with status 1" } else { "function exited with status 3" };
        for (payload, expected) in [
            ("0ok!", Ok("0ok!")),
            ("3", Err(exits)),
            ("u", Err("unreachable")),
            ("r", Err("call stack exhausted")),
            ("x", Err(if component { "status 1" } else { "exit status" })),
        ] {
            match (started.function.invoke(call(payload)).await, expected) {
                (Ok(reply), Ok(expected)) => assert_eq!(reply.payload, expected),
                (Err(CallError::Failed(text)), Err(expected)) => assert!(text.contains(expected), "{payload}: {text}"),
                (other, _) => panic!("{payload}: {other:?}"),
            }
            assert_eq!(started.function.invoke(call("again")).await, Ok("1".into()), "after {payload}");
        }
    }
}

#[tokio::test]
async fn a_runaway_is_stopped_at_its_limit_while_others_are_served() {
    for artifact in both(MOODS) {
        let limit = Duration::from_millis(300);
        let (started, _fixture) = start(&artifact, |fixture| fixture.launch.limits.call_time = limit).await;
        for payload in ["l", "w", "s"] {
            let mut runaway = started.function.invoke(call(payload));
            let other = tokio::select! {
                biased;
                ended = &mut runaway => panic!("{payload}: it ended before the other call: {ended:?}"),
                reply = started.function.invoke(call("other")) => reply,
            };
            assert_eq!(other, Ok("1".into()));
            assert_eq!(runaway.await, Err(CallError::Timeout(limit)), "{payload}");
            assert_eq!(started.function.invoke(call("again")).await, Ok("1".into()));
        }
    }
}

#[tokio::test]
async fn a_module_that_runs_away_while_it_is_instantiated_is_stopped_too() {
    let text = "(module (func $init (loop $forever (br $forever))) (start $init) (func (export \"_start\")))";
    let limit = Duration::from_millis(100);
    let (started, _fixture) = start(&module(text), |fixture| fixture.launch.limits.call_time = limit).await;
    assert_eq!(started.function.invoke(call("")).await, Err(CallError::Timeout(limit)));
}

#[tokio::test]
async fn memory_over_the_limit_is_refused_and_fails_only_a_guest_that_cannot_cope() {
    for artifact in both(MOODS) {
        let (started, _fixture) = start(&artifact, |_| ()).await;
        assert_eq!(started.function.invoke(call("m")).await, Err(CallError::OutOfMemory(64 << 20)));
        assert_eq!(started.function.invoke(call("g")).await, Ok("1".into()));
    }
    let (started, _fixture) = start(&module("(module (memory 2000) (func (export \"_start\")))"), |_| ()).await;
    assert_eq!(started.function.invoke(call("")).await, Err(CallError::OutOfMemory(64 << 20)));
}

#[tokio::test]
async fn a_reply_over_the_limit_is_an_error_with_its_size() {
    let (started, _fixture) = start(&module(MOODS), |_| ()).await;
    let expected = CallError::ReplyTooLarge { actual: 600_000, limit: 256 * 1024 };
    assert_eq!(started.function.invoke(call("b")).await, Err(expected));
}

#[tokio::test]
async fn a_log_over_the_limit_ends_the_call_and_is_told_by_its_name() {
    for artifact in both(CONTEXT) {
        let (started, mut fixture) = start(&artifact, |fixture| fixture.launch.limits.log_bytes = Some(4)).await;
        assert_eq!(started.function.invoke(call("")).await, Err(CallError::LogTooLong(4)));
        let said: Vec<_> =
            std::iter::from_fn(|| fixture.lines.try_recv()).filter(|line| line.text.contains("complaint")).collect();
        assert!(said.is_empty(), "{said:?}");
        let (roomy, _fixture) = start(&artifact, |fixture| fixture.launch.limits.log_bytes = Some(1_000)).await;
        assert!(roomy.function.invoke(call("")).await.is_ok());
    }
}

#[tokio::test]
async fn processor_time_over_the_limit_ends_the_call_long_before_its_time() {
    for artifact in both(MOODS) {
        let limit = Duration::from_millis(40);
        let (started, _fixture) = start(&artifact, |fixture| fixture.launch.limits.cpu_time = Some(limit)).await;
        for _ in 0..2 {
            assert_eq!(started.function.invoke(call("l")).await, Err(CallError::CpuTime(limit)));
            assert_eq!(started.function.invoke(call("again")).await, Ok("1".into()));
        }
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_before_the_call() {
    let (started, _fixture) = start(&module(ECHO), |fixture| fixture.launch.limits.payload_bytes = Some(4)).await;
    let expected = CallError::PayloadTooLarge { actual: 5, limit: 4 };
    assert_eq!(started.function.invoke(call("hello")).await, Err(expected));
    assert_eq!(started.function.invoke(call("four")).await, Ok("four".into()));
}

#[tokio::test]
async fn calls_over_the_concurrency_wait_for_their_turn() {
    let change = |fixture: &mut Fixture| fixture.launch.limits.concurrency = 1;
    let (started, _fixture) = start(&module(ECHO), change).await;
    let replies = futures::future::join_all((0..50_u8).map(|index| started.function.invoke(call(vec![index])))).await;
    assert!(replies.iter().zip(0..).all(|(reply, index)| reply == &Ok(vec![index].into())));
}

#[tokio::test]
async fn what_was_compiled_is_used_again_and_anything_else_is_ignored() {
    for artifact in both(ECHO) {
        let (first, fixture) = start(&artifact, |_| ()).await;
        assert!(!first.precompiled);
        let source = fixture.directory.path().join("source");
        std::fs::write(&source, &artifact).unwrap();
        let compiled = nex_engine_wasm::compile(&source).unwrap();
        let path = fixture.directory.path().join("compiled");
        let mut damaged = compiled.clone();
        damaged.truncate(compiled.len() / 2);
        let mut stale = compiled.clone();
        let version = stale.windows(6).position(|window| window == b"48.0.8").unwrap_or(0);
        stale[version] ^= 1;
        for (bytes, used) in [
            (compiled.as_slice(), true),
            (b"garbage", false),
            (b"", false),
            (&damaged, false),
            (&stale, false),
            (&artifact, false),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let (again, _fixture) = start(&artifact, |fixture| fixture.launch.precompiled = Some(path.clone())).await;
            assert_eq!(again.precompiled, used);
            assert_eq!(again.function.invoke(call("hello")).await, Ok("hello".into()));
        }
        std::fs::remove_file(&path).unwrap();
        let (again, _fixture) = start(&artifact, |fixture| fixture.launch.precompiled = Some(path.clone())).await;
        assert!(!again.precompiled);
    }
}

#[tokio::test]
async fn a_module_that_is_no_wasi_command_is_refused_with_the_reason() {
    assert!(invalid(b"#!/bin/sh").await.contains("failed to compile module: not WebAssembly"));
    assert!(invalid(&[]).await.contains("not WebAssembly"));
    assert!(invalid(&module("(module)")).await.contains("no function _start"));
    assert!(invalid(&module("(module (func (export \"_start\") (param i32)))")).await.contains("no function _start"));
    assert!(invalid(&module("(module (import \"env\" \"x\" (func)) (func (export \"_start\")))")).await.contains("env"));
    assert!(invalid(&wat::parse_str("(component)").unwrap()).await.contains("wasi:cli"));
    let mut broken = module(ECHO);
    broken.truncate(broken.len() - 3);
    assert!(invalid(&broken).await.contains("failed to compile module"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_module_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), component in any::<bool>()) {
        let header: &[u8] = if component { b"\0asm\x0d\0\x01\0" } else { b"\0asm\x01\0\0\0" };
        let mut artifact = if component { header.to_vec() } else { module(MOODS) };
        artifact.extend_from_slice(&[byte, 1, byte]);
        let at = at.index(artifact.len());
        artifact[at] = byte;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut fixture = fixture(&artifact);
            fixture.launch.limits.call_time = Duration::from_millis(20);
            if let Ok(started) = Engine::default().start(fixture.launch).await {
                let _reply = started.function.invoke(call("hello")).await;
            }
        });
    }
}

//! More scripts in a process than it has workers for. A file of its own, as workers are the whole process's.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{call, fixture};
use futures::future::join_all;
use nex_engine::{CallError, Function, HostClient};
use nex_engine_js::{JsFunction, prepare, start};
use nex_protocol::host::{HostError, HostRequest};
use tokio::sync::mpsc;

/// Most workers of a process.
const WORKERS: usize = 64;

async fn script(source: &str, time: Duration) -> JsFunction {
    let mut fixture = fixture(source);
    fixture.launch.limits.call_time = time;
    fixture.launch.limits.concurrency = 4;
    start(fixture.launch, prepare()).await.unwrap()
}

/// Threads that run scripts.
fn workers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    threads.filter(|it| std::fs::read_to_string(it.path().join("comm")).is_ok_and(|name| name.trim() == "js-worker")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_scripts_than_there_are_workers_are_all_served_and_make_room_for_one_another() {
    let mut functions = Vec::new();
    for number in 0..3 * WORKERS {
        functions.push(script(&format!("let n = 0; () => [{number}, ++n]"), Duration::from_secs(20)).await);
        // One that was given up may not be gone yet.
        assert!(workers() <= WORKERS + 8, "{}", workers());
    }
    for _round in 0..2 {
        for (number, function) in functions.iter().enumerate() {
            assert_eq!(function.invoke(call("")).await, Ok(format!("[{number},1]").into()));
        }
    }
    for _round in 0..3 {
        let replies = join_all(functions.iter().map(|function| function.invoke(call("")))).await;
        let wrong = replies.iter().enumerate().filter(|(number, reply)| **reply != Ok(format!("[{number},1]").into()));
        assert_eq!(wrong.count(), 0, "{replies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_never_end_leave_others_their_turn() {
    let mut loops = Vec::new();
    for _ in 0..2 * WORKERS {
        loops.push(script("() => { for (;;) {} }", Duration::from_millis(500)).await);
    }
    let victim = script("(s, p) => p.length", Duration::from_secs(60)).await;
    let attack = join_all(loops.iter().map(|function| function.invoke(call(""))));
    let served = async {
        for length in 0..5 {
            assert_eq!(victim.invoke(call(vec![0; length])).await, Ok(length.to_string().into()));
        }
    };
    let (attacked, ()) = tokio::join!(attack, served);
    assert!(attacked.iter().all(|reply| matches!(reply, Err(CallError::Timeout(_)))), "{attacked:?}");
}

/// Wants to know of what does not end.
struct Watcher(mpsc::Sender<String>);

impl HostClient for Watcher {
    fn call(&self, _request: HostRequest) -> futures::future::BoxFuture<'_, Result<bytes::Bytes, HostError>> {
        Box::pin(std::future::ready(Ok(bytes::Bytes::new())))
    }

    fn stuck(&self, message: String) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(async { self.0.send(message).await.unwrap() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_call_that_does_not_end_is_told_to_the_host_and_one_that_only_waits_is_not() {
    let (tell, mut told) = mpsc::channel(8);
    let with = async |source: &str, time: u64| {
        let mut fixture = fixture(source);
        fixture.launch.limits.call_time = Duration::from_millis(time);
        fixture.launch.limits.concurrency = 1;
        fixture.launch.host = Arc::new(Watcher(tell.clone()));
        start(fixture.launch, prepare()).await.unwrap()
    };
    let endless = with("() => { for (;;) {} }", 200).await;
    assert!(matches!(endless.invoke(call("")).await, Err(CallError::Timeout(_))));
    // A search that takes about as long as a test may, and ends: its thread is no longer needed then.
    let stuck = with(
        "() => { const long = 'x'.repeat(1 << 20); return new Array(300000).fill(long + 'a').includes(long + 'b'); }",
        2_000,
    )
    .await;
    let (first, second) = tokio::join!(stuck.invoke(call("")), stuck.invoke(call("")));
    assert!(matches!((first, second), (Err(CallError::Timeout(_)), Err(CallError::Timeout(_)))));
    let message = told.recv().await.unwrap();
    assert!(message.contains("after it was interrupted"), "{message}");
    assert!(told.try_recv().is_err(), "the call behind it, and the one that could be interrupted, are not blamed");
}

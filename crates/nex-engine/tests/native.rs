//! Native services with real programs: what they see, how they end, and that nothing of them stays.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::native::{Service, StoppedBy};
use nex_engine::{HostClient, Launch, Limits, Lines, Output, Stream};
use nex_protocol::digest::Digest;
use nex_protocol::host::{HostError, HostRequest};

struct NoHost;

impl HostClient for NoHost {
    fn call(&self, _request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        Box::pin(async { Err(HostError { code: 404, message: "none".into() }) })
    }
}

struct Fixture {
    launch: Launch,
    lines: Lines,
    _directory: tempfile::TempDir,
}

fn script(body: &str) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let artifact = directory.path().join("artifact");
    std::fs::write(&artifact, format!("#!/bin/sh\n{body}\n")).unwrap();
    let (output, lines) = Output::channel(1024);
    let limits =
        Limits { call_time: Duration::from_secs(5), memory_bytes: 0, concurrency: 1, reply_bytes: 1024, ..Limits::default() };
    let launch = Launch {
        name: "greeter".into(),
        artifact,
        digest: Digest::of(b""),
        is_typescript: false,
        argv: Vec::new(),
        environment: BTreeMap::new(),
        precompiled: None,
        limits,
        output,
        host: Arc::new(NoHost),
    };
    Fixture { launch, lines, _directory: directory }
}

async fn line(lines: &mut Lines) -> String {
    tokio::time::timeout(Duration::from_secs(10), lines.recv()).await.expect("a line in time").expect("a line").text
}

fn rest(mut lines: Lines) -> Vec<(Stream, String)> {
    std::iter::from_fn(|| lines.try_recv()).map(|line| (line.stream, line.text)).collect()
}

async fn gone(pid: &str) {
    // A zombie has ended as well; its adoptive parent reaps it.
    let alive = || std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let ended = nex_testkit::eventually(Duration::from_secs(10), async || !alive()).await;
    assert!(ended, "process {pid} still runs");
}

#[tokio::test]
async fn a_service_sees_its_arguments_and_only_its_own_environment() {
    let mut fixture = script("echo \"$1 $2\"; env | sort; echo oops >&2; printf last; exit 3");
    fixture.launch.argv = vec!["one".into(), "two words".into()];
    fixture.launch.environment =
        [("name", "lower"), ("NAME", "upper"), ("tmpdir", "/own")].map(|(k, v)| (k.into(), v.into())).into();
    let service = Service::start(fixture.launch).await.unwrap();
    let exit = service.wait().await;
    assert_eq!((exit.code, exit.signal), (3, None));
    assert_eq!(service.stop(Duration::from_secs(1), None).await, StoppedBy::AlreadyExited);
    drop(service);
    let lines = rest(fixture.lines);
    let home = format!("HOME={}", std::env::current_dir().unwrap().display());
    let out: Vec<_> = lines.iter().filter(|(stream, _)| *stream == Stream::Stdout).map(|(_, text)| text.as_str()).collect();
    let out: Vec<_> = out.into_iter().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    assert_eq!(out, ["one two words", &home, "NAME=upper", "PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=/own", "last"]);
    assert!(lines.contains(&(Stream::Stderr, "oops".into())));
}

#[tokio::test]
async fn a_program_is_executed_under_the_workloads_name() {
    let mut fixture = script("");
    std::fs::copy("/bin/cat", &fixture.launch.artifact).unwrap();
    fixture.launch.argv = vec!["/proc/self/cmdline".into()];
    let service = Service::start(fixture.launch).await.unwrap();
    assert_eq!(service.wait().await.code, 0);
    assert_eq!(rest(fixture.lines)[0].1, "greeter\0/proc/self/cmdline\0");
}

/// Whether this process was started with SIGINT ignored, as a shell does in the background: what it starts inherits that here, where there
/// is no jail that sets it right.
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    u64::from_str_radix(ignored, 16).unwrap() & 0b10 != 0
}

#[tokio::test]
async fn a_stop_escalates_only_until_the_program_ends() {
    if ignores_interrupts() {
        nex_testkit::skip!("a_stop_escalates_only_until_the_program_ends", "this process was started with SIGINT ignored");
    }
    for (traps, stopped_by, signal) in [
        ("", StoppedBy::Sigint, Some("SIGINT")),
        ("trap '' INT", StoppedBy::Sigterm, Some("SIGTERM")),
        ("trap '' INT TERM", StoppedBy::Sigkill, Some("SIGKILL")),
        ("trap 'exit 0' INT", StoppedBy::Sigint, None),
    ] {
        let mut fixture = script(&format!("{traps}\necho ready\nsleep 1000 & while :; do wait; done"));
        let service = Service::start(fixture.launch).await.unwrap();
        assert_eq!(line(&mut fixture.lines).await, "ready");
        assert_eq!(service.stop(Duration::from_millis(1000), None).await, stopped_by, "{traps}");
        assert_eq!(service.wait().await.signal.as_deref(), signal, "{traps}");
    }
}

#[tokio::test]
async fn a_dropped_service_and_its_children_are_gone() {
    let mut fixture = script("sleep 1000 & echo $!; echo $$; wait");
    let service = Service::start(fixture.launch).await.unwrap();
    let (child, leader) = (line(&mut fixture.lines).await, line(&mut fixture.lines).await);
    assert_eq!(leader, service.pid().to_string());
    drop(service);
    gone(&child).await;
    gone(&leader).await;
}

#[tokio::test]
async fn children_left_by_a_program_end_with_it() {
    let mut fixture = script("sleep 1000 & echo $!; exit 7");
    let service = Service::start(fixture.launch).await.unwrap();
    assert_eq!(service.wait().await.code, 7);
    gone(&line(&mut fixture.lines).await).await;
}

#[tokio::test]
async fn memory_over_the_limit_is_refused_to_the_program() {
    let mut fixture =
        script("read -r _ </dev/null; exec /usr/bin/env sh -c 'x=$(head -c 300000000 /dev/zero | tr \"\\0\" x); echo got ${#x}'");
    fixture.launch.limits.memory_bytes = 128 << 20;
    let service = Service::start(fixture.launch).await.unwrap();
    assert_ne!(service.wait().await.code, 0);
    assert!(!rest(fixture.lines).iter().any(|(_, text)| text.starts_with("got")));
}

#[tokio::test]
async fn an_artifact_or_environment_that_cannot_be_executed_is_refused_with_the_reason() {
    let fixture = script("");
    std::fs::write(&fixture.launch.artifact, b"\0asm").unwrap();
    let error = Service::start(fixture.launch).await.unwrap_err();
    assert!(error.to_string().contains("type wasm"), "{error}");
    let mut fixture = script("");
    fixture.launch.environment = [("a=b".to_owned(), String::new())].into();
    assert!(Service::start(fixture.launch).await.unwrap_err().to_string().contains("a=b"));
}

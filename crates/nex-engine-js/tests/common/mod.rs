//! Fixtures of tests and benchmarks: a launch for a source, and a host that records its requests.
#![allow(dead_code, reason = "the bench uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::{Call, CallError, Function as _, HostClient, Launch, Limits, Lines, Output};
use nex_engine_js::{JsFunction, prepare};
use nex_protocol::digest::Digest;
use nex_protocol::host::{HostError, HostRequest, Service};
use tokio::sync::Barrier;

/// Calls that meet at the host before any of them goes on.
pub(crate) const MEETING: usize = 4;

/// A host with canned replies.
pub(crate) struct Host {
    pub(crate) asked: Mutex<Vec<HostRequest>>,
    meeting: Barrier,
    waiting: AtomicUsize,
    pub(crate) max_waiting: AtomicUsize,
}

impl Default for Host {
    fn default() -> Self {
        let (waiting, max_waiting) = (AtomicUsize::default(), AtomicUsize::default());
        Self { asked: Mutex::default(), meeting: Barrier::new(MEETING), waiting, max_waiting }
    }
}

impl Host {
    /// Waits until [`MEETING`] calls are here.
    async fn meet(&self) {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_waiting.fetch_max(waiting, Ordering::SeqCst);
        self.meeting.wait().await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl HostClient for Host {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        self.asked.lock().unwrap().push(request.clone());
        Box::pin(async move {
            let text = match (request.service, request.method.as_str()) {
                (Service::KeyValue, "get") if request.target == "absent" => {
                    return Err(HostError { code: 500, message: "failed to get value for key".into() });
                }
                (Service::KeyValue, "get") if request.target == "slow" => std::future::pending().await,
                (Service::KeyValue, "get") => return Ok(Bytes::from_static(&[0, 0x80, 0xff])),
                (Service::KeyValue, "keys") => r#"["one","two"]"#,
                (Service::Messaging, "request") if request.target == "meet" => {
                    self.meet().await;
                    return Ok(request.body);
                }
                (Service::Messaging, "request" | "requestMany") => return Ok(request.body),
                (Service::ObjectStore, "put") => r#"{"name":"thing","size":3}"#,
                (Service::ObjectStore, "list") => r#"[{"name":"thing"}]"#,
                (Service::Http, "head") => r#"{"status":204,"headers":{}}"#,
                (Service::Http, _) => r#"{"status":200,"headers":{"Vary":["a","b"],"X":["y"]},"body_base64":"aMOp"}"#,
                _ => r#"{"success":true}"#,
            };
            Ok(Bytes::from(text))
        })
    }
}

pub(crate) struct Fixture {
    pub(crate) launch: Launch,
    pub(crate) lines: Lines,
    pub(crate) host: Arc<Host>,
    directory: tempfile::TempDir,
}

pub(crate) fn fixture(source: impl AsRef<[u8]>) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let artifact = directory.path().join("artifact");
    std::fs::write(&artifact, &source).unwrap();
    let (output, lines) = Output::channel(1024);
    let host = Arc::<Host>::default();
    let launch = Launch {
        name: "guest".into(),
        artifact,
        digest: Digest::of(source.as_ref()),
        is_typescript: false,
        argv: Vec::new(),
        environment: [("Name", "väl"), ("quoted", "\"x\"")].map(|(key, value)| (key.into(), value.into())).into(),
        precompiled: None,
        limits: Limits {
            call_time: Duration::from_secs(20),
            memory_bytes: 32 << 20,
            concurrency: 8,
            reply_bytes: 256 * 1024,
            ..Limits::default()
        },
        output,
        host: Arc::clone(&host) as Arc<dyn HostClient>,
    };
    Fixture { launch, lines, host, directory }
}

pub(crate) fn call(payload: impl Into<Bytes>) -> Call {
    Call { subject: "some.subject".into(), payload: payload.into(), headers: Vec::new(), host: None, streaming: None }
}

/// A function of `source`, as an agent starts it.
pub(crate) async fn started(source: &str) -> (JsFunction, Fixture) {
    let fixture = fixture(source);
    (nex_engine_js::start(fixture.launch.clone(), prepare()).await.unwrap(), fixture)
}

/// The reply of `source` to one call, as text.
pub(crate) async fn reply(source: &str) -> Result<String, CallError> {
    let (function, _fixture) = started(source).await;
    function.invoke(call("pay")).await.map(|reply| String::from_utf8(reply.payload.to_vec()).unwrap())
}

/// Why `source` fails.
pub(crate) async fn failure(source: &str) -> String {
    match reply(source).await {
        Err(CallError::Failed(text)) => text,
        other => panic!("{source}: {other:?}"),
    }
}

/// Evaluates all expressions in one function, each in a call of its own.
pub(crate) async fn check(expected: &[(&str, &str)]) {
    check_after("", expected).await;
}

/// The same, behind a text that the function begins with.
pub(crate) async fn check_after(preamble: &str, expected: &[(&str, &str)]) {
    let cases: Vec<_> = expected.iter().map(|(expression, _)| format!("async () => ({expression})")).collect();
    let source = format!(
        "const name = async (f) => {{ try {{ await f(); return 'nothing thrown' }} catch (e) {{ return e.name }} }};
         const bytes = (...b) => new Uint8Array(b); const hex = (b) => new Uint8Array(b).toHex?.() ?? [...new Uint8Array(b)].map((x) => x.toString(16).padStart(2, '0')).join('');
         {preamble}
         const cases = [{}]; async (s, p) => cases[Number(new TextDecoder().decode(p))]()",
        cases.join(",\n")
    );
    let function = nex_engine_js::start(fixture(source).launch, prepare()).await.unwrap();
    for (number, (expression, expected)) in expected.iter().enumerate() {
        let reply = function.invoke(call(number.to_string())).await;
        let reply = reply.map(|reply| String::from_utf8_lossy(&reply.payload).into_owned());
        assert_eq!(reply.as_deref(), Ok(*expected), "{expression}");
    }
}

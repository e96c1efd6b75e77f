//! What tests and benches share: guests as text, and a launch for each.
#![allow(dead_code, reason = "the bench uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::{Call, HostClient, Launch, Limits, Lines, Output};
use nex_protocol::digest::Digest;
use nex_protocol::host::{HostError, HostRequest};
use wasi_preview1_component_adapter_provider::{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER};

pub(crate) const ECHO: &str = include_str!("../guests/echo.wat");
pub(crate) const CONTEXT: &str = include_str!("../guests/context.wat");
pub(crate) const MOODS: &str = include_str!("../guests/moods.wat");

struct NoHost;

impl HostClient for NoHost {
    fn call(&self, _request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        Box::pin(async { Err(HostError { code: 404, message: "none".into() }) })
    }
}

pub(crate) struct Fixture {
    pub(crate) launch: Launch,
    pub(crate) lines: Lines,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// The same module as a component, made as toolchains make it.
pub(crate) fn component(text: &str) -> Vec<u8> {
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder = encoder.module(&module(text)).unwrap();
    encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER).unwrap();
    encoder.encode().unwrap()
}

pub(crate) fn fixture(artifact: &[u8]) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("artifact");
    std::fs::write(&path, artifact).unwrap();
    let (output, lines) = Output::channel(1024);
    let launch = Launch {
        name: "guest".into(),
        artifact: path,
        digest: Digest::of(artifact),
        is_typescript: false,
        argv: Vec::new(),
        environment: [("Name", "väl"), ("name", "lower")].map(|(key, value)| (key.into(), value.into())).into(),
        precompiled: None,
        limits: Limits {
            call_time: Duration::from_secs(20),
            memory_bytes: 64 << 20,
            concurrency: 8,
            reply_bytes: 256 * 1024,
            ..Limits::default()
        },
        output,
        host: Arc::new(NoHost),
    };
    Fixture { launch, lines, directory }
}

pub(crate) fn call(payload: impl Into<Bytes>) -> Call {
    Call { subject: "some.subject".into(), payload: payload.into(), headers: Vec::new(), host: None, streaming: None }
}

//! Host services as guests reach them, whatever the interface: counted, and at an end where there are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nex_engine::{HostClient, Trace};
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, HostRequest, REVISION, Service};
use tokio::sync::Notify;

/// Longest body of a request: a little under what the bus carries in one message.
pub(crate) const MAX_BODY: usize = 7 * 1024 * 1024;
/// Bytes of a revision before an entry's value.
const REVISION_BYTES: usize = 8;

/// A call made more host calls than its limit; ends the instance.
#[derive(Debug, thiserror::Error)]
#[error("too many host calls")]
pub(crate) struct TooManyHostCalls(pub(crate) u64);

/// The host services of one call; every clone counts with the others.
#[derive(Clone)]
pub(crate) struct HostCalls {
    client: Arc<dyn HostClient>,
    count: Arc<Count>,
    trace: Arc<Trace>,
}

/// Calls made, and what ends the instance when they are too many.
struct Count {
    made: AtomicU64,
    limit: Option<u64>,
    over: Notify,
}

/// A value and the revision it has; 0 where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) value: Bytes,
}

impl HostCalls {
    pub(crate) fn new(client: Arc<dyn HostClient>, limit: Option<u64>, trace: Trace) -> Self {
        let count = Count { made: AtomicU64::new(0), limit, over: Notify::new() };
        Self { client, count: Arc::new(count), trace: Arc::new(trace) }
    }

    /// Counts a call that is to be made.
    pub(crate) fn count(&self) -> Result<(), TooManyHostCalls> {
        let made = self.count.made.fetch_add(1, Ordering::Relaxed);
        match self.count.limit {
            Some(limit) if made >= limit => {
                self.count.over.notify_one();
                Err(TooManyHostCalls(limit))
            }
            _ => Ok(()),
        }
    }

    /// Waits until there are too many, wherever they are made: not every interface can end the instance itself.
    pub(crate) async fn too_many(&self) -> TooManyHostCalls {
        self.count.over.notified().await;
        TooManyHostCalls(self.count.limit.unwrap_or_default())
    }

    /// Makes a call that was counted.
    pub(crate) async fn call_counted(&self, mut request: HostRequest) -> Result<Bytes, HostError> {
        self.trace.add_to(&mut request);
        self.client.call(request).await
    }

    /// Calls a service; what it refuses is the guest's to hear, what is over the limit ends it.
    pub(crate) async fn call(&mut self, request: HostRequest) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.count()?;
        Ok(self.call_counted(request).await)
    }

    /// Calls `kv`.
    pub(crate) async fn kv(&mut self, method: &str, key: &str, body: Bytes) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.call(of(Service::KeyValue, method, key, body, Headers::new())).await
    }

    /// The value of a key with its revision.
    pub(crate) async fn kv_entry(&mut self, key: &str) -> wasmtime::Result<Result<Entry, HostError>> {
        let answer = self.kv("entry", key, Bytes::new()).await?;
        Ok(answer.and_then(|mut bytes| {
            let short = || HostError { code: 500, message: "an entry came without its revision".into() };
            let revision = bytes.get(..REVISION_BYTES).and_then(|head| head.try_into().ok()).map(u64::from_be_bytes);
            let revision = revision.ok_or_else(short)?;
            Ok(Entry { revision, value: bytes.split_off(REVISION_BYTES) })
        }))
    }

    /// Sets a key that still has this revision, or is not there if that is 0.
    pub(crate) async fn kv_update(
        &mut self,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> wasmtime::Result<Result<Bytes, HostError>> {
        let headers = vec![(REVISION.to_owned(), revision.to_string())];
        self.call(of(Service::KeyValue, "update", key, value, headers)).await
    }

    /// Calls `objectstore`.
    pub(crate) async fn objects(&mut self, method: &str, name: &str, body: Bytes) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.call(of(Service::ObjectStore, method, name, body, Headers::new())).await
    }

    /// Calls `messaging` with headers.
    pub(crate) async fn messaging_with(
        &mut self,
        method: &str,
        subject: &str,
        body: Bytes,
        headers: Headers,
    ) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.call(of(Service::Messaging, method, subject, body, headers)).await
    }

    /// Calls `messaging`.
    pub(crate) async fn messaging(
        &mut self,
        method: &str,
        subject: &str,
        body: Bytes,
    ) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.messaging_with(method, subject, body, Headers::new()).await
    }
}

fn of(service: Service, method: &str, target: &str, body: Bytes, headers: Headers) -> HostRequest {
    HostRequest { service, method: method.to_owned(), target: target.to_owned(), body, headers }
}

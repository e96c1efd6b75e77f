//! JavaScript functions: QuickJS on its own threads, a fresh runtime and context for every call, prepared in advance.
//!
//! A function is a classic script whose completion value is a function, `(subject, payload) => …`, as in Nex 0.2.7, or an ES module
//! whose default export is one; either may be `async`. The reply is `JSON.stringify` of what it returns, except that a `Uint8Array` or
//! `ArrayBuffer` is sent as raw bytes. Top-level code runs when the context is created, which is before its call arrives.
//!
//! ```text
//! invoke ─► queue ─► worker: call in the ready isolate ─► reply ─► drop the isolate, make the next one ─► queue
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::{Call, CallError, Function, Launch, StartError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

mod budget;
mod code;
mod failure;
mod globals;
mod host;
mod isolate;
mod pool;
mod script;
mod typed_array;

use budget::Cancel;
use pool::{Job, Pool};
use script::Script;

pub use script::MAX_SOURCE_BYTES;

/// A script ready to be called. Every call gets a fresh context.
pub struct JsFunction {
    pool: Arc<Pool>,
    calls: Semaphore,
}

/// Evaluates the script once and keeps the context for the first call. Must be called in a Tokio runtime with time enabled.
///
/// # Errors
/// [`StartError::Invalid`] when the source does not compile or gives no function, [`StartError::Host`] when it cannot be read or no
/// thread can be started.
pub async fn start(launch: Launch) -> Result<JsFunction, StartError> {
    let calls = Semaphore::new(launch.limits.concurrency.clamp(1, Semaphore::MAX_PERMITS));
    let handle = Handle::current();
    let read = tokio::task::spawn_blocking(move || Script::read(launch, handle));
    let script = read.await.map_err(|error| StartError::host("read the source", std::io::Error::other(error)))??;
    let (pool, ready) = Pool::start(script).map_err(|error| StartError::host("start a thread for the script", error))?;
    let function = JsFunction { pool, calls };
    ready.await.map_err(|error| StartError::host("prepare the script", std::io::Error::other(error)))??;
    Ok(function)
}

impl JsFunction {
    async fn call(&self, call: Call) -> Result<Bytes, CallError> {
        let limit = self.pool.limits().call_time;
        let deadline = Instant::now().checked_add(limit);
        let cancel = Cancel::default();
        let answer = async {
            let stopped = || CallError::Failed("function is stopped".to_owned());
            let _call = self.calls.acquire().await.map_err(|_closed| stopped())?;
            let (reply, answer) = oneshot::channel();
            self.pool.push(Job { call, deadline, cancel: cancel.flag(), reply });
            answer.await.map_err(|_dropped| stopped())?
        };
        // The worker has its own deadline; this one answers the caller even while the worker is in native code.
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

impl Function for JsFunction {
    fn invoke(&self, call: Call) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(self.call(call))
    }
}

impl Drop for JsFunction {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl fmt::Debug for JsFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsFunction").field("limits", self.pool.limits()).finish_non_exhaustive()
    }
}

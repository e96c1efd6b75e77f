//! JavaScript functions: QuickJS on its own threads, the same fresh state for every call.
//!
//! A function is a classic script whose completion value is a function, `(subject, payload) => …`, as in Nex 0.2.7, or an ES module
//! whose default export is one, or an object with `fetch(request)`; any may be `async`, and any may be TypeScript. The reply is `JSON.stringify` of what it returns, except that a `Uint8Array` or
//! `ArrayBuffer` is sent as raw bytes and `undefined` as nothing.
//!
//! Top-level code runs once for each worker, whose memory is then the *image*. After a call the pages it wrote are put back, so that no
//! call sees what another did. What must differ from call to call lies outside: time, random numbers, host services.
//!
//! ```text
//! load ─► image      invoke ─► queue ─► worker: call ─► reply ─► put the image back ─► queue
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use nex_engine::{Call, CallError, Function, Launch, Reply, StartError, Stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

mod arena;
mod budget;
mod callback;
mod clock;
mod failure;
mod held;
mod host;
mod image;
mod isolate;
mod load;
mod message;
mod natives;
mod pagemap;
mod pending;
mod pool;
mod region;
mod rejections;
mod script;
mod settle;
mod slots;
mod source_map;
mod typescript;
mod value;
mod vm;
mod web;
mod worker;

use pending::Pending;
use pool::{Job, Pool};
use script::Script;

pub use image::{Restore, prepare};
pub use isolate::{Isolate, STACK_BYTES};
pub use script::MAX_SOURCE_BYTES;

/// A script ready to be called. No call sees what another did.
pub struct JsFunction {
    pool: Arc<Pool>,
    calls: Arc<Semaphore>,
}

/// Loads the script; [`prepare`] tells how it can be restored. What costs more than it has to is said in its output. Must be called in a Tokio runtime with time enabled.
///
/// # Errors
/// [`StartError::Invalid`] when the source does not compile or gives no function, [`StartError::Host`] when it cannot be read or no
/// thread can be started.
pub async fn start(launch: Launch, restore: Restore) -> Result<JsFunction, StartError> {
    if restore != Restore::CopyWritten {
        launch
            .output
            .line(Stream::Stderr, format!("JavaScript: after each call, {restore}; calls take longer than they have to"));
    }
    let calls = Arc::new(Semaphore::new(launch.limits.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
    let handle = Handle::current();
    let read = tokio::task::spawn_blocking(move || Script::read(launch, restore, handle));
    let script = read.await.map_err(|error| StartError::host("read the source", std::io::Error::other(error)))??;
    let (pool, ready) = Pool::start(script, worker::run);
    let function = JsFunction { pool, calls };
    ready.await.map_err(|error| StartError::host("prepare the script", std::io::Error::other(error)))??;
    Ok(function)
}

impl JsFunction {
    async fn call(&self, call: Call) -> Result<Reply, CallError> {
        self.pool.limits().admit(&call)?;
        let limit = self.pool.limits().call_time;
        let deadline = Instant::now().checked_add(limit);
        let answer = async {
            let stopped = || CallError::Failed("function is stopped".to_owned());
            let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_closed| stopped())?;
            let (reply, answer) = oneshot::channel();
            let mut pending = Pending::new(Arc::clone(&self.pool.script), permit, answer);
            self.pool.push(Job { call, deadline, cancel: pending.cancel(), worker: pending.worker(), reply });
            pending.answer().await.unwrap_or_else(|_dropped| Err(stopped()))
        };
        // The worker has its own deadline; this one answers the caller even while the worker is in native code.
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

impl Function for JsFunction {
    fn invoke(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
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

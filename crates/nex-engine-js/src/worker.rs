//! One worker of a script: a thread with an isolate, for as long as there are calls, or nobody else needs its place.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nex_engine::CallError;

use crate::clock::this_thread;
use crate::isolate::{Isolate, LoadError};
use crate::pool::{Next, Pool};
use crate::slots::SLOTS;

/// A running worker; dropped when its thread ends, also by a panic.
struct Worker {
    pool: Arc<Pool>,
    free: Cell<bool>,
    began: Instant,
}

/// Runs a worker on this thread until it must end.
pub(crate) fn run(pool: Arc<Pool>) {
    Worker { pool, free: Cell::new(false), began: Instant::now() }.run();
}

impl Worker {
    fn run(self) {
        let load = || Isolate::new(&self.pool.script, &self.pool.closed);
        let ready = self.pool.take_ready();
        let mut isolate = match (load(), ready) {
            // There is no room for one more: those that are there do it, or one of another script makes room.
            (Err(LoadError::Host(error)), ready) if self.has_no_room(&error) => {
                if let Some(ready) = ready {
                    self.pool.put_ready(ready);
                }
                return;
            }
            (Err(error), Some(ready)) => {
                let _receiver_gone = ready.send(Err(error.into()));
                return;
            }
            (isolate, ready) => {
                self.set_free();
                let _receiver_gone = ready.map(|ready| ready.send(Ok(())));
                isolate
            }
        };
        while let Next::Job(job) = self.next() {
            if job.reply.is_closed() || job.cancel.load(Ordering::Relaxed) {
                self.set_free();
                continue;
            }
            job.worker.store(this_thread(), Ordering::Relaxed);
            let reply = match &isolate {
                Ok(isolate) => isolate.call_until(&job.call, job.deadline, job.cancel),
                Err(LoadError::Script(error)) => Err(error.clone()),
                Err(LoadError::Host(error)) => Err(CallError::Failed(format!("failed to set up a JavaScript context: {error}"))),
            };
            // The caller's next call is for this worker, not a reason to start another.
            self.set_free();
            let _caller_gone = job.reply.send(reply);
            // After the reply, so that nobody waits for it.
            let restored = isolate.as_mut().is_ok_and(|isolate| isolate.restore().is_ok());
            if !restored {
                drop(isolate);
                isolate = load();
            }
        }
    }

    /// Whether another worker, of this script or of others, is to be had instead of this one.
    fn has_no_room(&self, error: &io::Error) -> bool {
        let has_others = self.pool.cap() || SLOTS.lower();
        if has_others {
            tracing::warn!(%error, "cannot load the script on another thread; calls wait for the existing ones");
        }
        has_others
    }

    fn set_free(&self) {
        self.pool.set_free();
        self.free.set(true);
    }

    fn next(&self) -> Next {
        let next = self.pool.next(self.began);
        self.free.set(false);
        next
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.free.get() {
            // By a panic only.
            self.pool.forget_free();
        }
        self.pool.ended();
    }
}

//! Worker threads of a function: one at first, more while calls wait, each with its next isolate ready.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nex_engine::{Call, CallError, Limits, StartError};
use tokio::sync::oneshot;

use crate::isolate::Isolate;
use crate::script::Script;

/// Workers per core; more than one because a worker blocks while it waits for a host service.
const MAX_WORKERS_PER_CORE: usize = 4;
/// A worker other than the last one ends after this time without a call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Stack of a worker's thread: what a script may use, and room for the engine to report an overflow.
const THREAD_STACK_BYTES: usize = 4 * 1024 * 1024;

/// One call on its way to a worker.
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) reply: oneshot::Sender<Result<Bytes, CallError>>,
}

/// Reports that the first worker's isolate is ready, or why it is not.
type Ready = oneshot::Sender<Result<(), StartError>>;
type Report = oneshot::Receiver<Result<(), StartError>>;

pub(crate) struct Pool {
    script: Arc<Script>,
    queue: Mutex<Queue>,
    wake: Condvar,
    closed: Arc<AtomicBool>,
    max_workers: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    workers: usize,
}

impl Pool {
    /// Starts the first worker; the receiver resolves once its isolate is ready.
    pub(crate) fn start(script: Script) -> io::Result<(Arc<Self>, Report)> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let max_workers = script.limits.concurrency.clamp(1, cores * MAX_WORKERS_PER_CORE);
        let pool =
            Self { script: Arc::new(script), queue: Mutex::default(), wake: Condvar::new(), closed: Arc::default(), max_workers };
        let pool = Arc::new(pool);
        let (ready, report) = oneshot::channel();
        pool.lock().workers = 1;
        Self::spawn(&pool, Some(ready))?;
        Ok((pool, report))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.script.limits
    }

    /// Queues a call for the next free worker. The caller bounds the number of calls.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        let mut queue = self.lock();
        queue.jobs.push_back(job);
        let grow = queue.jobs.len() > queue.idle && queue.workers < self.max_workers;
        queue.workers += usize::from(grow);
        drop(queue);
        self.wake.notify_one();
        if grow && let Err(error) = Self::spawn(self, None) {
            tracing::warn!(%error, "cannot start another thread for the script; calls wait for the existing ones");
            self.lock().workers -= 1;
        }
    }

    /// Stops all workers and interrupts their scripts.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        queue.jobs.clear();
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(pool: &Arc<Self>, ready: Option<Ready>) -> io::Result<()> {
        let pool = Arc::clone(pool);
        let run = move || {
            let worker = Worker { pool, counted: Cell::new(true) };
            worker.run(ready);
        };
        thread::Builder::new().name("js-worker".to_owned()).stack_size(THREAD_STACK_BYTES).spawn(run).map(drop)
    }
}

/// A running worker; dropped when its thread ends, also by a panic.
struct Worker {
    pool: Arc<Pool>,
    counted: Cell<bool>,
}

impl Worker {
    fn run(&self, ready: Option<Ready>) {
        let pool = &self.pool;
        let mut isolate = Isolate::new(&pool.script, &pool.closed);
        if let Some(ready) = ready {
            let failed = isolate
                .as_ref()
                .err()
                .map(|error| StartError::Invalid(format!("failed to compile source for execution: {error}")));
            let invalid = failed.is_some();
            let _receiver_gone = ready.send(failed.map_or(Ok(()), Err));
            if invalid {
                return;
            }
        }
        while let Some(job) = self.next() {
            if job.reply.is_closed() {
                continue;
            }
            let reply = match &isolate {
                Ok(isolate) => isolate.call(&job.call, job.deadline, job.cancel),
                Err(error) => Err(error.clone()),
            };
            let _caller_gone = job.reply.send(reply);
            // Replace the isolate after the reply, so that nobody waits for it.
            drop(isolate);
            isolate = Isolate::new(&pool.script, &pool.closed);
        }
    }

    /// Waits for the next call; `None` if the worker must end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.pool.lock();
        loop {
            if self.pool.closed.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue.idle += 1;
            let (woken, waited) = self.pool.wake.wait_timeout(queue, IDLE_TIMEOUT).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() && queue.workers > 1 {
                // Same lock as the check above, so one worker always stays.
                queue.workers -= 1;
                self.counted.set(false);
                return None;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.counted.get() {
            self.pool.lock().workers -= 1;
        }
    }
}

//! Worker threads of a function: one at first, more while calls wait, each with its isolate.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nex_engine::{Call, CallError, Limits, Reply, StartError};
use tokio::sync::oneshot;

use crate::isolate::{Isolate, LoadError, STACK_BYTES};
use crate::script::Script;

/// Workers per core; more than one because a worker blocks while it waits for a host service.
const MAX_WORKERS_PER_CORE: usize = 4;
/// A worker other than the last one ends after this time without a call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// One call on its way to a worker.
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) reply: oneshot::Sender<Result<Reply, CallError>>,
}

/// Reports that the first worker's isolate is ready, or why it is not.
type Ready = oneshot::Sender<Result<(), StartError>>;
type Report = oneshot::Receiver<Result<(), StartError>>;

pub(crate) struct Pool {
    script: Arc<Script>,
    queue: Mutex<Queue>,
    wake: Condvar,
    closed: Arc<AtomicBool>,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Workers that wait for a call, or will in a moment: their image is being put back.
    free: usize,
    workers: usize,
    max_workers: usize,
}

impl Pool {
    /// Starts the first worker; the receiver resolves once its isolate is ready.
    pub(crate) fn start(script: Script) -> io::Result<(Arc<Self>, Report)> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let max_workers = script.limits.concurrency.clamp(1, cores * MAX_WORKERS_PER_CORE);
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), free: 0, workers: 1, max_workers });
        let pool = Arc::new(Self { script: Arc::new(script), queue, wake: Condvar::new(), closed: Arc::default() });
        let (ready, report) = oneshot::channel();
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
        let grow = queue.jobs.len() > queue.free && queue.workers < queue.max_workers;
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
            let worker = Worker { pool, counted: Cell::new(true), free: Cell::new(false) };
            worker.run(ready);
        };
        thread::Builder::new().name("js-worker".to_owned()).stack_size(STACK_BYTES).spawn(run).map(drop)
    }
}

/// A running worker; dropped when its thread ends, also by a panic.
struct Worker {
    pool: Arc<Pool>,
    counted: Cell<bool>,
    free: Cell<bool>,
}

impl Worker {
    fn run(&self, ready: Option<Ready>) {
        let pool = &self.pool;
        let load = || Isolate::new(&pool.script, &pool.closed);
        let mut isolate = match (load(), ready) {
            (Ok(isolate), Some(ready)) => {
                self.set_free();
                let _receiver_gone = ready.send(Ok(()));
                Ok(isolate)
            }
            (Err(error), Some(ready)) => {
                let _receiver_gone = ready.send(Err(error.into()));
                return;
            }
            // There is no room for one more: those that are there do it.
            (Err(LoadError::Host(error)), None) => return self.be_the_last(&error),
            (isolate, None) => {
                self.set_free();
                isolate
            }
        };
        while let Some(job) = self.next() {
            if job.reply.is_closed() {
                self.set_free();
                continue;
            }
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

    /// Ends this worker, and lets no more be started than there are without it.
    fn be_the_last(&self, error: &io::Error) {
        tracing::warn!(%error, "cannot load the script on another thread; calls wait for the existing ones");
        let mut queue = self.pool.lock();
        queue.workers -= 1;
        queue.max_workers = queue.workers.max(1);
        self.counted.set(false);
        drop(queue);
        // A call that was meant for this one.
        self.pool.wake.notify_one();
    }

    fn set_free(&self) {
        self.pool.lock().free += 1;
        self.free.set(true);
    }

    /// Waits for the next call; `None` if the worker must end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.pool.lock();
        loop {
            if self.pool.closed.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.free -= 1;
                self.free.set(false);
                return Some(job);
            }
            let (woken, waited) = self.pool.wake.wait_timeout(queue, IDLE_TIMEOUT).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
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
        let mut queue = self.pool.lock();
        queue.workers -= usize::from(self.counted.get());
        queue.free -= usize::from(self.free.get());
    }
}

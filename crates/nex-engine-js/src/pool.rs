//! The threads of a function: one at first, more while calls wait, each with its next isolate ready.

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
use crate::recipe::Recipe;

/// Workers per core: a worker that waits for a host service uses none.
const WORKERS_PER_CORE: usize = 4;
/// A worker other than the last one ends after so long without a call.
const IDLE: Duration = Duration::from_secs(30);
/// Stack of a worker's thread; it exceeds what a script may use by what the engine needs to say so.
const THREAD_STACK: usize = 4 * 1024 * 1024;

/// One call on its way to a worker.
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) reply: oneshot::Sender<Result<Bytes, CallError>>,
}

/// Told once the first worker's isolate is ready, or why it is not.
type Ready = oneshot::Sender<Result<(), StartError>>;
type Report = oneshot::Receiver<Result<(), StartError>>;

pub(crate) struct Pool {
    recipe: Arc<Recipe>,
    queue: Mutex<Queue>,
    wake: Condvar,
    closed: Arc<AtomicBool>,
    most: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    workers: usize,
}

impl Pool {
    /// Starts the first worker; what it says about the script comes later.
    pub(crate) fn start(recipe: Recipe) -> io::Result<(Arc<Self>, Report)> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let most = recipe.limits.concurrency.clamp(1, cores * WORKERS_PER_CORE);
        let pool = Self { recipe: Arc::new(recipe), queue: Mutex::default(), wake: Condvar::new(), closed: Arc::default(), most };
        let pool = Arc::new(pool);
        let (ready, report) = oneshot::channel();
        pool.lock().workers = 1;
        Self::spawn(&pool, Some(ready))?;
        Ok((pool, report))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.recipe.limits
    }

    /// Hands a call to the next free worker. The caller bounds how many there are.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        let mut queue = self.lock();
        queue.jobs.push_back(job);
        let grow = queue.jobs.len() > queue.idle && queue.workers < self.most;
        queue.workers += usize::from(grow);
        drop(queue);
        self.wake.notify_one();
        if grow && let Err(error) = Self::spawn(self, None) {
            tracing::warn!(%error, "no further thread for the script, calls wait for those there are");
            self.lock().workers -= 1;
        }
    }

    /// Ends all workers, and interrupts what they run.
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
        thread::Builder::new().name("js-worker".to_owned()).stack_size(THREAD_STACK).spawn(run).map(drop)
    }
}

/// A running worker; dropped when its thread ends, however that happens.
struct Worker {
    pool: Arc<Pool>,
    counted: Cell<bool>,
}

impl Worker {
    fn run(&self, ready: Option<Ready>) {
        let pool = &self.pool;
        let mut isolate = Isolate::new(&pool.recipe, &pool.closed);
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
            // Only now, when nobody waits for it: taking the old one down and making the next.
            drop(isolate);
            isolate = Isolate::new(&pool.recipe, &pool.closed);
        }
    }

    /// The next call; nothing when the worker has to end.
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
            let (woken, waited) = self.pool.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() && queue.workers > 1 {
                // Under the same lock as the look at the others, so that one always stays.
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

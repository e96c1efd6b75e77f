//! Worker threads of a function: one at first, more while calls wait, each with its isolate, as many as the process has [`SLOTS`] for.
//!
//! Where a process has several scripts, one that nobody calls is unloaded; its next call loads it again.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nex_engine::{Call, CallError, Limits, Reply, StartError};
use tokio::sync::oneshot;

use crate::isolate::STACK_BYTES;
use crate::script::Script;
use crate::slots::{SLOTS, Tenant};

/// Workers per core; more than one because a worker blocks while it waits for a host service.
const MAX_WORKERS_PER_CORE: usize = 4;
/// A worker other than the last one of the only script ends after this time without a call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker for which others wait goes on this long while it has calls.
const TURN: Duration = Duration::from_millis(50);

/// One call on its way to a worker.
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Arc<AtomicBool>,
    /// The worker's thread, from when it begins with it.
    pub(crate) worker: Arc<AtomicI32>,
    pub(crate) reply: oneshot::Sender<Result<Reply, CallError>>,
}

/// Reports that the first worker's isolate is ready, or why it is not.
pub(crate) type Ready = oneshot::Sender<Result<(), StartError>>;
type Report = oneshot::Receiver<Result<(), StartError>>;

pub(crate) struct Pool {
    pub(crate) script: Arc<Script>,
    pub(crate) closed: Arc<AtomicBool>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// What a worker's thread does.
    run: fn(Arc<Pool>),
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Whoever waits for the first worker.
    ready: Option<Ready>,
    /// Workers that wait for a call, or will in a moment: their image is being put back.
    free: usize,
    /// Since when the last one does.
    idle_since: Instant,
    workers: usize,
    max_workers: usize,
    /// Whether it waits for a slot.
    asked: bool,
}

/// What comes after a wait for the next call.
pub(crate) enum Next {
    Job(Job),
    /// The worker must end.
    End,
}

impl Pool {
    /// Starts the first worker; the receiver resolves once its isolate is ready.
    pub(crate) fn start(script: Script, run: fn(Arc<Self>)) -> (Arc<Self>, Report) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let max_workers = script.limits.concurrency.clamp(1, cores * MAX_WORKERS_PER_CORE);
        let (ready, report) = oneshot::channel();
        let queue = Queue {
            jobs: VecDeque::new(),
            ready: Some(ready),
            free: 0,
            idle_since: Instant::now(),
            workers: 0,
            max_workers,
            asked: true,
        };
        let (script, queue) = (Arc::new(script), Mutex::new(queue));
        let pool = Arc::new(Self { script, closed: Arc::default(), queue, wake: Condvar::new(), run });
        SLOTS.enter();
        pool.ask();
        (pool, report)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.script.limits
    }

    /// Queues a call for the next free worker. The caller bounds the number of calls.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        let mut queue = self.lock();
        queue.jobs.push_back(job);
        let asks = queue.asks();
        drop(queue);
        self.wake.notify_one();
        if asks {
            self.ask();
        }
    }

    /// Stops all workers and interrupts their scripts.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        queue.jobs.clear();
        queue.ready = None;
        self.wake.notify_all();
    }

    /// Asks for one more worker, which [`Queue::asks`] has announced.
    fn ask(self: &Arc<Self>) {
        let tenant: Arc<dyn Tenant> = Arc::clone(self) as _;
        if SLOTS.take(&tenant) {
            tenant.granted();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker of its own cannot be: without any, calls are told so.
    fn refuse(self: &Arc<Self>, error: &io::Error) {
        tracing::warn!(%error, "cannot start another thread for the script; calls wait for the existing ones");
        // One of another script makes room, if there are any.
        let has_others = SLOTS.lower();
        let mut queue = self.lock();
        queue.workers -= 1;
        if queue.workers == 0 && !has_others {
            for job in std::mem::take(&mut queue.jobs) {
                let _caller_gone =
                    job.reply.send(Err(CallError::Failed(format!("cannot start a thread for the script: {error}"))));
            }
            if let Some(ready) = queue.ready.take() {
                let again = io::Error::new(error.kind(), error.to_string());
                let _receiver_gone = ready.send(Err(StartError::host("start a thread for the script", again)));
            }
        }
        let asks = queue.asks();
        drop(queue);
        SLOTS.give_back();
        if asks {
            self.ask();
        }
    }

    /// Whoever waits for the first worker, if it is this one.
    pub(crate) fn take_ready(&self) -> Option<Ready> {
        self.lock().ready.take()
    }

    /// Puts that back: this one cannot be it.
    pub(crate) fn put_ready(&self, ready: Ready) {
        self.lock().ready = Some(ready);
    }

    pub(crate) fn set_free(&self) {
        let mut queue = self.lock();
        queue.free += 1;
        queue.idle_since = Instant::now();
    }

    /// A free worker ends without having been told to.
    pub(crate) fn forget_free(&self) {
        self.lock().free -= 1;
    }

    /// Lets no more workers be started than there are without this one, unless it is the only one.
    pub(crate) fn cap(&self) -> bool {
        let mut queue = self.lock();
        let has_others = queue.workers > 1;
        if has_others {
            queue.max_workers = queue.workers - 1;
        }
        has_others
    }

    /// Waits for a free worker's next call; a worker that must end is none any more.
    pub(crate) fn next(&self, began: Instant) -> Next {
        let mut queue = self.lock();
        loop {
            let is_wanted = SLOTS.is_wanted();
            let is_over = is_wanted && began.elapsed() >= TURN;
            if self.closed.load(Ordering::Relaxed) || (is_over && !queue.jobs.is_empty()) {
                break;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.free -= 1;
                return Next::Job(job);
            }
            if is_wanted {
                break;
            }
            let (woken, waited) = self.wake.wait_timeout(queue, IDLE_TIMEOUT).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            // Same lock as where calls are queued: one that comes now finds no worker, and asks for one.
            if waited.timed_out() && queue.jobs.is_empty() && (queue.workers > 1 || !SLOTS.is_alone()) {
                break;
            }
        }
        queue.free -= 1;
        Next::End
    }

    /// A worker has ended, and its memory is free.
    pub(crate) fn ended(self: &Arc<Self>) {
        let mut queue = self.lock();
        queue.workers -= 1;
        // Its turn was over, or a call came while it ended.
        let asks = queue.asks();
        drop(queue);
        SLOTS.give_back();
        if asks {
            self.ask();
        }
    }
}

impl Queue {
    /// Whether to ask for one more worker; whoever is told so does.
    fn asks(&mut self) -> bool {
        let waits = self.jobs.len() > self.free || (self.ready.is_some() && self.workers == 0);
        let asks = waits && !self.asked && self.workers < self.max_workers;
        self.asked |= asks;
        asks
    }
}

impl Tenant for Pool {
    fn granted(self: Arc<Self>) {
        let mut queue = self.lock();
        queue.asked = false;
        queue.workers += 1;
        drop(queue);
        let (pool, run) = (Arc::clone(&self), self.run);
        let run = move || run(pool);
        if let Err(error) = thread::Builder::new().name("js-worker".to_owned()).stack_size(STACK_BYTES).spawn(run) {
            self.refuse(&error);
        }
    }

    fn is_in_want(&self) -> bool {
        let mut queue = self.lock();
        let is_in_want = !self.closed.load(Ordering::Relaxed) && (!queue.jobs.is_empty() || queue.ready.is_some());
        queue.asked &= is_in_want;
        is_in_want
    }

    fn has_workers(&self) -> bool {
        let queue = self.lock();
        queue.workers > 0 || queue.asked
    }

    fn idle(&self, wake: bool) -> Option<Instant> {
        let queue = self.lock();
        if wake {
            self.wake.notify_all();
        }
        (queue.free > 0 && queue.jobs.is_empty()).then_some(queue.idle_since)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        SLOTS.leave();
    }
}

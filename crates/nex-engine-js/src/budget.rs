//! What one call may use: time, host calls, log. When one of it is spent, the running script is interrupted, and cannot catch that.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nex_engine::{CallError, Limits, thread_cpu_time};

/// Longest sleep between checks for cancellation.
const MAX_SLEEP: Duration = Duration::from_millis(10);

/// Held by the caller; dropping it cancels the call.
#[derive(Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// The flag that is set on drop.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The budget of one isolate, used on its thread.
#[derive(Debug)]
pub(crate) struct Budget {
    begin: Cell<Instant>,
    deadline: Cell<Option<Instant>>,
    cancelled: RefCell<Arc<AtomicBool>>,
    closed: Arc<AtomicBool>,
    limits: Limits,
    /// Processor time of the thread when the call began, if it is bounded.
    cpu_begin: Cell<Duration>,
    host_calls: Cell<u64>,
    logged: Cell<u64>,
    spent: Cell<Option<Spent>>,
}

/// What a call has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    /// Its time, or nobody waits for it any more.
    Time,
    Cpu,
    HostCalls,
    Log,
}

impl Budget {
    /// A budget that is spent at `deadline`, or as soon as `closed` is set.
    pub(crate) fn new(limits: Limits, deadline: Option<Instant>, closed: Arc<AtomicBool>) -> Self {
        let new = Self {
            begin: Instant::now().into(),
            deadline: deadline.into(),
            cancelled: RefCell::default(),
            closed,
            limits,
            cpu_begin: Cell::default(),
            host_calls: Cell::default(),
            logged: Cell::default(),
            spent: Cell::default(),
        };
        new.renew(deadline, Arc::default());
        new
    }

    /// Starts the budget of a call.
    pub(crate) fn renew(&self, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) {
        self.begin.set(Instant::now());
        self.deadline.set(deadline);
        self.spent.set(None);
        self.cancelled.replace(cancelled);
        self.host_calls.set(0);
        self.logged.set(0);
        if self.limits.cpu_time.is_some() {
            self.cpu_begin.set(thread_cpu_time());
        }
    }

    /// Whether the script must stop. Once true it stays true, so that the resulting failure is told as what it is.
    pub(crate) fn check(&self) -> bool {
        if self.spent.get().is_none() {
            self.spent.set(self.time());
        }
        self.spent.get().is_some()
    }

    fn time(&self) -> Option<Spent> {
        let is_over = self.deadline.get().is_some_and(|deadline| Instant::now() >= deadline)
            || self.cancelled.borrow().load(Ordering::Relaxed)
            || self.closed.load(Ordering::Relaxed);
        let worked = |limit| thread_cpu_time().saturating_sub(self.cpu_begin.get()) >= limit;
        match is_over {
            true => Some(Spent::Time),
            false => self.limits.cpu_time.is_some_and(worked).then_some(Spent::Cpu),
        }
    }

    /// Counts a host call; `false` if it is one too many.
    pub(crate) fn count_host_call(&self) -> bool {
        self.count(&self.host_calls, 1, self.limits.host_calls, Spent::HostCalls)
    }

    /// Counts what is to be logged; `false` if it is too much.
    pub(crate) fn count_log(&self, text: &str) -> bool {
        self.count(&self.logged, text.len() as u64, self.limits.log_bytes, Spent::Log)
    }

    fn count(&self, counter: &Cell<u64>, more: u64, limit: Option<u64>, spent: Spent) -> bool {
        let count = counter.get().saturating_add(more);
        counter.set(count);
        let is_over = limit.is_some_and(|limit| count > limit);
        if is_over && self.spent.get().is_none() {
            self.spent.set(Some(spent));
        }
        !is_over
    }

    /// What a call that had to stop is told.
    pub(crate) fn error(&self) -> Option<CallError> {
        if !self.check() {
            return None;
        }
        let Limits { call_time, cpu_time, host_calls, log_bytes, .. } = self.limits;
        Some(match self.spent.get()? {
            Spent::Time => CallError::Timeout(call_time),
            Spent::Cpu => CallError::CpuTime(cpu_time.unwrap_or_default()),
            Spent::HostCalls => CallError::TooManyHostCalls(host_calls.unwrap_or_default()),
            Spent::Log => CallError::LogTooLong(log_bytes.unwrap_or_default()),
        })
    }

    /// Time left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.get().map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Milliseconds since the call began.
    pub(crate) fn now(&self) -> f64 {
        self.begin.get().elapsed().as_secs_f64() * 1000.0
    }

    /// When the call began, in milliseconds since 1970.
    pub(crate) fn began(&self) -> f64 {
        let began = SystemTime::now().checked_sub(self.begin.get().elapsed());
        began.and_then(|began| began.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
    }

    /// Sleeps for some milliseconds, or until the budget is spent.
    pub(crate) fn wait(&self, milliseconds: f64) {
        let pause = Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or(Duration::MAX);
        let end = Instant::now().checked_add(pause.min(self.left()));
        while !self.check() {
            let left = end.map_or(MAX_SLEEP, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left.min(MAX_SLEEP));
        }
    }
}

//! Time budget of one call. When it is spent, the running script is interrupted.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    spent: Cell<bool>,
}

impl Budget {
    /// A budget that is spent at `deadline`, or as soon as `closed` is set.
    pub(crate) fn new(deadline: Option<Instant>, closed: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self { begin: now.into(), deadline: deadline.into(), cancelled: RefCell::default(), closed, spent: false.into() }
    }

    /// Starts the budget of a call.
    pub(crate) fn renew(&self, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) {
        self.begin.set(Instant::now());
        self.deadline.set(deadline);
        self.spent.set(false);
        self.cancelled.replace(cancelled);
    }

    /// Whether the script must stop. Once true it stays true, so that the resulting failure is classified as a timeout.
    pub(crate) fn check(&self) -> bool {
        let spent = self.spent.get()
            || self.deadline.get().is_some_and(|deadline| Instant::now() >= deadline)
            || self.cancelled.borrow().load(Ordering::Relaxed)
            || self.closed.load(Ordering::Relaxed);
        self.spent.set(spent);
        spent
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

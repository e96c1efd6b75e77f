//! What came of calls, as counters, events and log lines: one event for a lone call, one with a count for many in a moment, so that events
//! never cost more than the calls they tell of. Counters are exact; no caller waits here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nex_process::TaskScope;
use nex_protocol::log::Level;
use tokio::sync::Notify;

use crate::events::Events;
use crate::logs::Log;
use crate::workload::spec::WorkloadSpec;

/// Calls that end within this span of each other share an event.
const WINDOW: Duration = Duration::from_millis(250);
/// Failures published one by one in a window; the counters know of all.
const MAX_FAILURES: u32 = 20;

/// Longest error that is remembered, bytes.
const MAX_LAST_ERROR: usize = 512;

/// What a function has done, for INFO and discovery. Of its size as it was made, whatever is counted.
#[derive(Debug)]
pub struct CallCounters {
    triggers: Vec<TriggerCounters>,
}

/// The calls of one trigger.
#[derive(Debug, Default)]
pub struct TriggerCounters {
    /// The subject.
    pub trigger: String,
    /// Nanoseconds spent in calls.
    pub nanos: AtomicU64,
    /// Calls that ended well.
    pub succeeded: AtomicU64,
    /// Calls that failed.
    pub failed: AtomicU64,
    last_error: Mutex<String>,
}

impl CallCounters {
    /// No calls yet, on these triggers.
    #[must_use]
    pub fn new(triggers: &[String]) -> Self {
        let counters = |trigger: &String| TriggerCounters { trigger: trigger.clone(), ..TriggerCounters::default() };
        Self { triggers: triggers.iter().map(counters).collect() }
    }

    /// Those of all triggers.
    #[must_use]
    pub fn all(&self) -> &[TriggerCounters] {
        &self.triggers
    }

    /// Nanoseconds spent in all calls.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.triggers.iter().map(|counters| counters.nanos.load(Ordering::Relaxed)).sum()
    }

    fn of(&self, trigger: &str) -> Option<&TriggerCounters> {
        self.triggers.iter().find(|counters| counters.trigger == trigger)
    }
}

impl TriggerCounters {
    /// Why the last call that failed did; empty if none did.
    #[must_use]
    pub fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }

    fn remember(&self, error: &str) {
        let end = (0..=MAX_LAST_ERROR.min(error.len())).rev().find(|at| error.is_char_boundary(*at)).unwrap_or_default();
        let mut last = lock(&self.last_error);
        last.clear();
        last.push_str(error.get(..end).unwrap_or_default());
    }
}

#[derive(Debug, Default)]
struct Window {
    succeeded: HashMap<Arc<str>, (u64, u64)>,
    failures: u32,
}

#[derive(Debug)]
struct Inner {
    events: Events,
    log: Mutex<Log>,
    spec: Arc<WorkloadSpec>,
    counters: Arc<CallCounters>,
    window: Mutex<Window>,
    wake: Notify,
}

/// The reporter of one function. Cheap to clone; its task ends with the scope it was started in.
#[derive(Debug, Clone)]
pub struct CallReporter {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallReporter {
    /// Begins to report for a workload.
    #[must_use]
    pub fn start(scope: &TaskScope, events: Events, log: Log, spec: Arc<WorkloadSpec>, counters: Arc<CallCounters>) -> Self {
        let inner = Inner { events, log: Mutex::new(log), spec, counters, window: Mutex::default(), wake: Notify::new() };
        let this = Self { inner: Arc::new(inner) };
        let reporting = this.clone();
        scope.spawn("call reporter", async move {
            loop {
                reporting.inner.wake.notified().await;
                tokio::time::sleep(WINDOW).await;
                reporting.flush();
            }
        });
        this
    }

    /// Calls of a trigger that ended well, and the nanoseconds they took together.
    pub fn succeeded(&self, trigger: &Arc<str>, count: u64, nanos: u64) {
        if let Some(counters) = self.inner.counters.of(trigger) {
            counters.succeeded.fetch_add(count, Ordering::Relaxed);
            counters.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
        let mut window = lock(&self.inner.window);
        let is_first = window.succeeded.is_empty() && window.failures == 0;
        let sum = window.succeeded.entry(Arc::clone(trigger)).or_default();
        *sum = (sum.0.saturating_add(count), sum.1.saturating_add(nanos));
        drop(window);
        if is_first {
            self.inner.wake.notify_one();
        }
    }

    /// Calls of a trigger that failed, and the errors of the first of them.
    pub fn failed<'a>(&self, trigger: &str, count: u64, errors: impl IntoIterator<Item = &'a str>) {
        let counters = self.inner.counters.of(trigger);
        if let Some(counters) = counters {
            counters.failed.fetch_add(count, Ordering::Relaxed);
        }
        let mut window = lock(&self.inner.window);
        let is_first = window.succeeded.is_empty() && window.failures == 0;
        for error in errors {
            counters.inspect(|counters| counters.remember(error));
            window.failures = window.failures.saturating_add(1);
            if window.failures <= MAX_FAILURES {
                self.inner.events.execution_failed(&self.inner.spec, trigger, error);
                let what = if self.inner.spec.kind.is_function() { "function" } else { "service" };
                lock(&self.inner.log).line(Level::Error, format!("{what} failed on {trigger}: {error}"));
            }
        }
        drop(window);
        if is_first {
            self.inner.wake.notify_one();
        }
    }

    /// Something that its deployer should know of a trigger, as a line of its log.
    pub fn note(&self, text: String) {
        lock(&self.inner.log).line(Level::Warn, text);
    }

    /// Tells what was not told yet.
    pub fn flush(&self) {
        let Window { succeeded, .. } = std::mem::take(&mut *lock(&self.inner.window));
        for (trigger, (count, nanos)) in succeeded {
            self.inner.events.executed(&self.inner.spec, &trigger, count, Duration::from_nanos(nanos));
        }
        lock(&self.inner.log).report_dropped();
    }
}

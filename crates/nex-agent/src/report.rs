//! What came of calls the agent served by itself: counted where it happens, told to the node a few times a second, never lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nex_protocol::agent::AgentEvent;
use nex_protocol::agent::report::MAX_ERRORS;
use nex_protocol::id::InstanceId;
use tokio::sync::Notify;

use crate::event::EventSender;

/// Calls are reported this often.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// The calls of one trigger since the node was last told.
#[derive(Debug, Default)]
struct TriggerCounters {
    trigger: String,
    succeeded: AtomicU64,
    failed: AtomicU64,
    nanos: AtomicU64,
    errors: Mutex<Vec<String>>,
    is_closed: AtomicBool,
}

/// The calls of an instance.
#[derive(Debug, Default)]
pub(crate) struct CallCounters {
    triggers: Vec<TriggerCounters>,
    /// Set while the node has not been told of everything.
    dirty: AtomicBool,
    wake: Notify,
}

impl CallCounters {
    /// No calls yet, on these triggers.
    pub(crate) fn new(triggers: &[String]) -> Self {
        let counters = |trigger: &String| TriggerCounters { trigger: trigger.clone(), ..TriggerCounters::default() };
        Self { triggers: triggers.iter().map(counters).collect(), ..Self::default() }
    }

    /// Counts a call of a trigger, by its index, that ended well.
    pub(crate) fn succeeded(&self, trigger: usize, took: Duration) {
        if let Some(counters) = self.triggers.get(trigger) {
            counters.succeeded.fetch_add(1, Ordering::Relaxed);
            counters.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.wake();
    }

    /// Counts a call of a trigger that failed, and remembers why if there is room.
    pub(crate) fn failed(&self, trigger: usize, error: String) {
        if let Some(counters) = self.triggers.get(trigger) {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            let mut errors = counters.errors.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() < MAX_ERRORS {
                errors.push(error);
            }
        }
        self.wake();
    }

    /// Nothing more will be counted on a trigger.
    pub(crate) fn close(&self, trigger: usize) {
        if let Some(counters) = self.triggers.get(trigger) {
            counters.is_closed.store(true, Ordering::Release);
        }
        self.wake.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.triggers.iter().all(|counters| counters.is_closed.load(Ordering::Acquire))
    }

    fn wake(&self) {
        // Most calls find the report awake already; one look is all they pay.
        if !self.dirty.load(Ordering::Acquire) && !self.dirty.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Takes what was counted since the last time, a report a trigger.
    fn take(&self) -> Vec<AgentEvent> {
        // First this, then the look: what is counted from here on wakes anew.
        self.dirty.store(false, Ordering::SeqCst);
        let reports = self.triggers.iter().filter_map(|counters| {
            let succeeded = counters.succeeded.swap(0, Ordering::Relaxed);
            let failed = counters.failed.swap(0, Ordering::Relaxed);
            let errors = std::mem::take(&mut *counters.errors.lock().unwrap_or_else(PoisonError::into_inner));
            let elapsed_nanos = counters.nanos.swap(0, Ordering::Relaxed);
            let trigger = counters.trigger.clone();
            (succeeded + failed > 0).then_some(AgentEvent::Calls { trigger, succeeded, failed, elapsed_nanos, errors })
        });
        reports.collect()
    }
}

/// Tells the node.
pub(crate) struct Report {
    pub(crate) events: Arc<EventSender>,
    pub(crate) instance: InstanceId,
}

impl Report {
    /// Until every trigger is closed, and the last of what they served is told.
    pub(crate) async fn run(self, counters: Arc<CallCounters>) {
        loop {
            // Most of the time there is nothing: no timer runs until something was counted.
            counters.wake.notified().await;
            let is_closed = counters.is_closed();
            for report in counters.take() {
                self.events.deliver(&self.instance, &report).await;
            }
            if is_closed {
                return;
            }
            if !counters.is_closed() {
                tokio::time::sleep(REPORT_EVERY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_and_only_some_errors_are_told() {
        let counters = CallCounters::new(&["a".to_owned(), "b".to_owned()]);
        counters.succeeded(0, Duration::from_nanos(3));
        for number in 0..2 * MAX_ERRORS {
            counters.failed(0, format!("failure {number}"));
        }
        let reports = counters.take();
        let [AgentEvent::Calls { trigger, succeeded: 1, failed, elapsed_nanos: 3, errors }] = reports.as_slice() else {
            panic!("{reports:?}")
        };
        assert_eq!((trigger.as_str(), *failed, errors.len()), ("a", 2 * MAX_ERRORS as u64, MAX_ERRORS));
        assert_eq!(counters.take(), []);
    }
}

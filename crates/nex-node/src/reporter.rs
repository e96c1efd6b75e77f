//! What came of calls, as counters, events and log lines: one event for a lone call, one with a count for many in a moment, so that events
//! never cost more than the calls they tell of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nex_process::TaskScope;
use nex_protocol::log::Level;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::events::Events;
use crate::logs::Log;
use crate::trigger::{Counters, Outcome};
use crate::workload::spec::WorkloadSpec;

/// Calls that end within this span of each other share an event.
const WINDOW: Duration = Duration::from_millis(250);
/// Longest time for the last events of a function that is over.
const LAST_EVENTS: Duration = Duration::from_secs(1);
/// Failures published one by one in a window; the counters know of all.
const FAILURES_PER_WINDOW: u32 = 20;

/// The reporter of one function.
#[derive(Debug)]
pub struct Reporter {
    outcomes: mpsc::Sender<Outcome>,
    counters: Arc<Counters>,
    batches: mpsc::Sender<(Arc<str>, u64, u64)>,
    scope: TaskScope,
}

struct Publisher {
    events: Events,
    log: Log,
    spec: Arc<WorkloadSpec>,
    counters: Arc<Counters>,
    ended_well: HashMap<Arc<str>, (u64, u64)>,
    failures: u32,
    window_ends: Option<Instant>,
}

impl Reporter {
    /// Begins to report for a workload; dropping it ends that.
    #[must_use]
    pub fn new(events: Events, log: Log, spec: &Arc<WorkloadSpec>, counters: Arc<Counters>) -> Self {
        let (outcomes, inbox) = mpsc::channel(4_096);
        let (batches, batch_inbox) = mpsc::channel(256);
        let scope = TaskScope::new("reporter");
        let publisher = Publisher {
            events,
            log,
            spec: Arc::clone(spec),
            counters: Arc::clone(&counters),
            ended_well: HashMap::new(),
            failures: 0,
            window_ends: None,
        };
        scope.spawn("reporter", publisher.run(inbox, batch_inbox));
        Self { outcomes, counters, batches, scope }
    }

    /// Tells what was not told yet, and ends.
    pub async fn close(self) {
        let Self { outcomes, batches, scope, .. } = self;
        drop((outcomes, batches));
        scope.shutdown(LAST_EVENTS).await;
    }

    /// Where relayed calls tell their outcome.
    #[must_use]
    pub fn outcomes(&self) -> mpsc::Sender<Outcome> {
        self.outcomes.clone()
    }

    /// Calls the agent served by itself.
    pub fn executed(&self, trigger: String, count: u64, nanos: u64) {
        self.counters.add(count, nanos);
        self.batches.try_send((trigger.into(), count, nanos)).ok();
    }

    /// A call the agent served by itself and that failed.
    pub fn failed(&self, trigger: &str, error: &str) {
        self.outcomes.try_send(Outcome::Failed { trigger: trigger.into(), error: error.to_owned() }).ok();
    }
}

impl Publisher {
    async fn run(mut self, mut outcomes: mpsc::Receiver<Outcome>, mut batches: mpsc::Receiver<(Arc<str>, u64, u64)>) {
        loop {
            let window = self.window_ends.unwrap_or_else(Instant::now);
            tokio::select! {
                outcome = outcomes.recv() => match outcome {
                    Some(Outcome::Succeeded { trigger, nanos }) => {
                        self.counters.add(1, nanos);
                        self.collect(trigger, 1, nanos);
                    }
                    Some(Outcome::Failed { trigger, error }) => self.fail(&trigger, &error).await,
                    None => break,
                },
                Some((trigger, count, nanos)) = batches.recv() => self.collect(trigger, count, nanos),
                () = tokio::time::sleep_until(window), if self.window_ends.is_some() => self.flush().await,
            }
        }
        while let Ok((trigger, count, nanos)) = batches.try_recv() {
            self.collect(trigger, count, nanos);
        }
        self.flush().await;
    }

    fn collect(&mut self, trigger: Arc<str>, count: u64, nanos: u64) {
        self.open_window();
        let sum = self.ended_well.entry(trigger).or_default();
        *sum = (sum.0.saturating_add(count), sum.1.saturating_add(nanos));
    }

    async fn fail(&mut self, trigger: &str, error: &str) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.open_window();
        self.failures += 1;
        if self.failures <= FAILURES_PER_WINDOW {
            self.events.execution_failed(&self.spec, trigger, error).await;
            self.log.line(Level::Error, format!("function failed on {trigger}: {error}")).await;
        }
    }

    fn open_window(&mut self) {
        self.window_ends.get_or_insert_with(|| Instant::now() + WINDOW);
    }

    async fn flush(&mut self) {
        (self.window_ends, self.failures) = (None, 0);
        for (trigger, (count, nanos)) in std::mem::take(&mut self.ended_well) {
            self.events.executed(&self.spec, &trigger, count, Duration::from_nanos(nanos)).await;
        }
    }
}

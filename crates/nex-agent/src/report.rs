//! What came of calls the agent served by itself, on its way to the node: counted where it happens, told a few times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use nex_protocol::agent::{AgentEvent, host_subject};
use nex_protocol::id::WorkloadId;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Calls are reported this often.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// A call that failed: the index of its trigger, and why.
pub(crate) type Failed = (usize, String);

/// What a trigger has served since the node was last told.
#[derive(Debug)]
struct Tally {
    trigger: String,
    succeeded: AtomicU64,
    nanos: AtomicU64,
}

/// What came of calls the agent served by itself: counted where it happens, told by [`Report`].
#[derive(Debug, Default)]
pub(crate) struct Served {
    tallies: Vec<Tally>,
    /// Set while the node has not been told of everything.
    news: AtomicBool,
    wake: Notify,
}

impl Served {
    /// Nothing served yet, on these triggers.
    pub(crate) fn on(triggers: &[String]) -> Self {
        let tally = |trigger: &String| Tally { trigger: trigger.clone(), succeeded: AtomicU64::new(0), nanos: AtomicU64::new(0) };
        Self { tallies: triggers.iter().map(tally).collect(), ..Self::default() }
    }

    /// Counts a call of a trigger, by its index, that ended well.
    pub(crate) fn count(&self, trigger: usize, took: Duration) {
        if let Some(tally) = self.tallies.get(trigger) {
            tally.succeeded.fetch_add(1, Ordering::Relaxed);
            tally.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        // Most calls find the report awake already; one look is all they pay.
        if !self.news.load(Ordering::Acquire) && !self.news.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}

/// Tells the node what was served.
pub(crate) struct Report {
    pub(crate) bus: Client,
    pub(crate) agent: WorkloadId,
}

impl Report {
    /// Until every trigger is gone, and the last of what they served is told.
    pub(crate) async fn run(self, served: Arc<Served>, mut failures: mpsc::Receiver<Failed>, stop: CancellationToken) {
        let mut is_over = false;
        while !is_over {
            // Most of the time there is nothing: no timer runs until something was served.
            tokio::select! {
                () = served.wake.notified() => {}
                failed = failures.recv() => match failed {
                    Some(failed) => self.tell_failed(&served, failed).await,
                    None => is_over = true,
                },
            }
            // First this, then the look: what is served from here on wakes anew.
            served.news.store(false, Ordering::SeqCst);
            for Tally { trigger, succeeded, nanos } in &served.tallies {
                let (succeeded, elapsed_nanos) = (succeeded.swap(0, Ordering::Relaxed), nanos.swap(0, Ordering::Relaxed));
                if succeeded > 0 {
                    self.send(&AgentEvent::Executed { succeeded, elapsed_nanos, subject: trigger.clone() }).await;
                }
            }
            while let Ok(failed) = failures.try_recv() {
                self.tell_failed(&served, failed).await;
            }
            if !is_over {
                stop.run_until_cancelled(tokio::time::sleep(REPORT_EVERY)).await;
            }
        }
        self.bus.flush().await.ok();
    }

    async fn tell_failed(&self, served: &Served, (trigger, error): Failed) {
        let subject = served.tallies.get(trigger).map(|tally| tally.trigger.clone()).unwrap_or_default();
        self.send(&AgentEvent::ExecutionFailed { subject, error }).await;
    }

    async fn send(&self, event: &AgentEvent) {
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.bus.publish(host_subject(&self.agent, "events"), body.into()).await.ok();
    }
}

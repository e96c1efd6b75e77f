//! Calls of functions without a pause, and which of them failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nex_client::Client;
use nex_process::TaskScope;
use nex_testkit::eventually;

use crate::plan::TIMEOUT;

/// Longest time of one call.
const CALL: Duration = Duration::from_secs(10);
/// Between two calls of one function; what is tested is what becomes of calls, not how many there can be.
const PAUSE: Duration = Duration::from_millis(3);

/// A failed call.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) subject: String,
    pub(crate) error: String,
}

/// One caller for each function.
pub(crate) struct Callers {
    answered: BTreeMap<String, Arc<AtomicU64>>,
    failures: Arc<Mutex<Vec<Failure>>>,
    scope: TaskScope,
}

impl Callers {
    /// Calls functions until [`Self::stop`].
    pub(crate) fn start(client: &Client, subjects: &[String]) -> Self {
        let (scope, failures) = (TaskScope::new("callers"), Arc::new(Mutex::new(Vec::new())));
        let mut answered = BTreeMap::new();
        for subject in subjects {
            let count = Arc::new(AtomicU64::new(0));
            answered.insert(subject.clone(), Arc::clone(&count));
            let (client, failures, subject, cancel) =
                (client.clone(), Arc::clone(&failures), subject.clone(), scope.cancel_token());
            scope.spawn("caller", async move {
                while !cancel.is_cancelled() {
                    match client.call(&subject, "x".into(), CALL).await {
                        Ok(_reply) => drop(count.fetch_add(1, Ordering::AcqRel)),
                        Err(error) => {
                            let failure = Failure { subject: subject.clone(), error: nex_protocol::envelope::chain(&error) };
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { answered, failures, scope }
    }

    /// Calls that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.values().map(|count| count.load(Ordering::Acquire)).sum()
    }

    /// Whether every function answers a few more calls in time; if not, the ones that do not.
    pub(crate) async fn all_answer(&self) -> Result<(), BTreeSet<String>> {
        let goals: Vec<_> =
            self.answered.iter().map(|(subject, count)| (subject, count, count.load(Ordering::Acquire) + 3)).collect();
        let silent = || {
            goals.iter().filter(|(_, count, goal)| count.load(Ordering::Acquire) < *goal).map(|(subject, ..)| (*subject).clone())
        };
        if eventually(TIMEOUT, async || silent().next().is_none()).await { Ok(()) } else { Err(silent().collect()) }
    }

    /// The calls that failed since this was asked last.
    pub(crate) fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the calls; those under way are waited for.
    pub(crate) async fn stop(self) {
        self.scope.shutdown(CALL).await;
    }
}

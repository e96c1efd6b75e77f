//! A call that somebody waits for, and what becomes of it when nobody does any more: one that does not end although it is interrupted,
//! because the engine is in native code, is told to the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use nex_engine::{CallError, Reply};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::oneshot::{self, Receiver};

use crate::budget::Cancel;
use crate::clock::used_by;
use crate::script::Script;

/// Processor time that an interrupted call may use until it ends: the engine looks for interruptions far more often.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks at how much it was.
const LOOK: Duration = Duration::from_millis(500);

type Answer = Receiver<Result<Reply, CallError>>;

/// A call under way.
pub(crate) struct Pending {
    script: Arc<Script>,
    cancel: Cancel,
    worker: Arc<AtomicI32>,
    /// Its place among the calls under way, and where its answer comes; taken when it has.
    rest: Option<(OwnedSemaphorePermit, Answer)>,
}

impl Pending {
    /// Its answer comes here.
    pub(crate) fn new(script: Arc<Script>, permit: OwnedSemaphorePermit, answer: Answer) -> Self {
        Self { script, cancel: Cancel::default(), worker: Arc::default(), rest: Some((permit, answer)) }
    }

    /// Set when nobody waits for it any more.
    pub(crate) fn cancel(&self) -> Arc<AtomicBool> {
        self.cancel.flag()
    }

    /// Where a worker that begins with it has to put its thread.
    pub(crate) fn worker(&self) -> Arc<AtomicI32> {
        Arc::clone(&self.worker)
    }

    /// Its answer.
    pub(crate) async fn answer(&mut self) -> Result<Result<Reply, CallError>, RecvError> {
        match &mut self.rest {
            Some((_, answer)) => {
                let answer = answer.await;
                self.rest = None;
                answer
            }
            // Nobody asks twice.
            None => oneshot::channel().1.await,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some((permit, mut answer)) = self.rest.take() else { return };
        let worker = self.worker.load(Ordering::Relaxed);
        if worker == 0 || answer.try_recv().is_ok() {
            return;
        }
        // It has its place until it has ended: what is stuck is not called without end.
        let script = Arc::clone(&self.script);
        let watch = async move {
            let interrupted = used_by(worker);
            while tokio::time::timeout(LOOK, &mut answer).await.is_err() {
                // What has no thread any more has no answer either.
                let (Some(before), Some(now)) = (interrupted, used_by(worker)) else { break };
                if now.saturating_sub(before) >= STUCK_AFTER {
                    let used = STUCK_AFTER.as_secs();
                    script.host.stuck(format!("it used {used} s of processor time after it was interrupted")).await;
                    break;
                }
            }
            drop(permit);
        };
        drop(self.script.handle.spawn(watch));
    }
}

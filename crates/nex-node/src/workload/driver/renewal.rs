//! Another instance in the place of one that runs, because what it was started with has changed. The state of the workload does not move by
//! that, unless the old one had to end first and the new one does not start.

use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use nex_process::Deadline;
use nex_protocol::control::ExitCause;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Driver, Runtime};
use crate::workload::launch_error::LaunchError;
use crate::workload::outcome::{End, Notice};
use crate::workload::state::{Event, Phase};

/// An instance that is being started.
pub(super) struct Renewal<I> {
    pub(super) start: BoxFuture<'static, Result<I, LaunchError>>,
    /// Whoever waits for it; dropped, they hear that it is over.
    waiting: Vec<oneshot::Sender<()>>,
}

impl<R: Runtime> Driver<R> {
    /// Begins to start another instance: beside the one that runs, or after that has ended.
    pub(super) fn renew(&mut self, overlaps: bool, done: oneshot::Sender<()>) {
        if let Some(renewal) = &mut self.renewal {
            // Whether it still sees what changed since nobody knows: who asks looks again.
            return renewal.waiting.push(done);
        }
        if self.state.phase != Phase::Running {
            return;
        }
        let old = self.instance.take_if(|_| !overlaps).map(|(old, _)| self.runtime.undeploy(old, self.grace));
        let started = self.runtime.start(Deadline::after(self.timeouts.deploy + self.grace));
        let start = async move {
            OptionFuture::from(old).await;
            started.await
        };
        self.renewal = Some(Renewal { start: Box::pin(start), waiting: vec![done] });
    }

    /// The new instance takes the place of the old one, which answers what it has taken. One that does not start changes nothing, unless the
    /// old one has ended for it.
    pub(super) async fn on_renewed(&mut self, renewed: Result<R::Instance, LaunchError>) -> Option<Event> {
        // Whoever waits hears that it is over by this.
        drop(self.renewal.take());
        match renewed {
            Ok(instance) if self.state.phase == Phase::Running => {
                let old = self.instance.replace((instance, Instant::now()));
                let recorded = match &self.instance {
                    Some((instance, _)) => self.runtime.record(Some(instance), self.life(None)).await,
                    None => Ok(()),
                };
                recorded.unwrap_or_else(|error| self.runtime.tell(&Notice::NotRecorded(&error)));
                self.runtime.tell(&Notice::Started);
                self.replaced = old.map(|(old, _)| self.runtime.undeploy(old, self.grace));
                None
            }
            Ok(instance) => {
                self.runtime.release(instance);
                None
            }
            Err(error) => {
                self.runtime.tell(&Notice::StartFailed(&error));
                let has_ended = self.state.phase == Phase::Running && self.instance.is_none();
                has_ended.then(|| {
                    let reason = error.to_string();
                    self.ended_by_itself(End { cause: ExitCause::NotStarted, code: -1, reason: reason.clone() }, reason);
                    Event::Ended { failed: true, ran: Duration::ZERO }
                })
            }
        }
    }
}

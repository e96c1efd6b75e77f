//! One warm pool: a driver task owns the ready items and applies what [`State`] decides; [`WarmPool`] is its handle.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use nex_process::{Deadline, TaskScope};
use tokio::sync::{mpsc, oneshot, watch};

use super::state::{Effect, Event, State};

/// Creates the items of a pool.
pub trait Factory: Send + Sync + 'static {
    /// An item; dropping one must clean it up.
    type Item: Send + 'static;
    /// Creates one, ready for use. The factory bounds the time.
    fn create(&self) -> BoxFuture<'_, Result<Self::Item, CreateFailed>>;
    /// Resolves when a ready item has become unusable.
    fn gone(&self, item: &Self::Item) -> BoxFuture<'static, ()>;
    /// Discards an unused item; when this returns, nothing of it is left.
    fn discard(&self, item: Self::Item) -> BoxFuture<'static, ()>;
}

/// Why one could not be made, the whole chain as text: it is logged, published and shown to callers.
pub type CreateFailed = String;

/// Why a lease failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Nothing became ready in time.
    #[error("no agent was ready in time; {}", advice(.0.as_deref()))]
    Deadline(Option<CreateFailed>),
    /// The pool is closed.
    #[error("the node is stopping")]
    Closed,
}

fn advice(last_failure: Option<&str>) -> String {
    match last_failure {
        None => "next: try again, or raise machine_pool_size".to_owned(),
        Some(why) => format!("the last one failed: {why}; next: try again when that is mended"),
    }
}

/// The published status of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// How many are ready.
    pub ready: usize,
    /// Whether one was ever created.
    pub proven: bool,
    /// Why the last creation failed, until one succeeds.
    pub last_failure: Option<CreateFailed>,
}

/// Handle of the pool; the driver stops when its scope is cancelled, and discards everything ready.
pub struct WarmPool<T> {
    requests: mpsc::Sender<oneshot::Sender<T>>,
    status: watch::Receiver<Status>,
}

impl<T> fmt::Debug for WarmPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmPool").field("status", &*self.status.borrow()).finish()
    }
}

impl<T: Send + 'static> WarmPool<T> {
    /// Starts to fill a pool in a scope.
    pub fn start<F: Factory<Item = T>>(scope: &TaskScope, factory: F, target: usize) -> Self {
        let (requests, inbox) = mpsc::channel(256);
        let (publish, status) = watch::channel(Status::default());
        let mut driver = Driver {
            factory: Arc::new(factory),
            state: State::new(target),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            work: FuturesUnordered::new(),
            publish,
        };
        let cancelled = scope.cancel_token();
        scope.spawn("pool", async move {
            tokio::select! {
                () = driver.run(inbox) => {}
                () = cancelled.cancelled() => {}
            }
            driver.work.clear();
            let ready = std::mem::take(&mut driver.ready);
            futures::future::join_all(ready.into_iter().map(|(_, item)| driver.factory.discard(item))).await;
        });
        Self { requests, status }
    }

    /// Takes an item, waiting until one is ready.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self, by: Deadline) -> Result<T, LeaseError> {
        let (reply, item) = oneshot::channel();
        let leased = by.bound(async {
            self.requests.send(reply).await.map_err(|_closed| LeaseError::Closed)?;
            item.await.map_err(|_closed| LeaseError::Closed)
        });
        leased.await.unwrap_or_else(|_late| Err(LeaseError::Deadline(self.status.borrow().last_failure.clone())))
    }

    /// The status and its changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

enum Done<T> {
    Created(Result<T, CreateFailed>),
    Gone(u64),
    BackoffOver,
}

struct Driver<F: Factory> {
    factory: Arc<F>,
    state: State,
    ready: VecDeque<(u64, F::Item)>,
    waiting: VecDeque<oneshot::Sender<F::Item>>,
    work: FuturesUnordered<BoxFuture<'static, Done<F::Item>>>,
    publish: watch::Sender<Status>,
}

impl<F: Factory> Driver<F> {
    async fn run(&mut self, mut inbox: mpsc::Receiver<oneshot::Sender<F::Item>>) {
        let mut serial = 0;
        self.apply(Event::Start, None);
        loop {
            tokio::select! {
                request = inbox.recv() => {
                    let Some(request) = request else { return };
                    self.drop_cancelled_requests();
                    self.waiting.push_back(request);
                    self.apply(Event::Lease, None);
                }
                Some(done) = self.work.next() => match done {
                    Done::Created(Ok(item)) => {
                        serial += 1;
                        self.drop_cancelled_requests();
                        self.publish.send_modify(|status| (status.proven, status.last_failure) = (true, None));
                        self.apply(Event::Created, Some((serial, item)));
                    }
                    Done::Created(Err(why)) => {
                        tracing::warn!(error = %why, failures = self.state.failures + 1, "agent could not be made");
                        self.publish.send_modify(|status| status.last_failure = Some(why));
                        self.apply(Event::Failed, None);
                    }
                    Done::Gone(which) => {
                        let before = self.ready.len();
                        self.ready.retain(|(serial, _)| *serial != which);
                        if self.ready.len() < before {
                            tracing::warn!("a warm agent died and is replaced");
                            self.apply(Event::Died, None);
                        }
                    }
                    Done::BackoffOver => self.apply(Event::BackoffOver, None),
                },
            }
        }
    }

    fn apply(&mut self, event: Event, made: Option<(u64, F::Item)>) {
        if let Some((serial, item)) = made {
            let gone = self.factory.gone(&item);
            self.work.push(Box::pin(async move {
                gone.await;
                Done::Gone(serial)
            }));
            self.ready.push_back((serial, item));
        }
        let (state, effects) = self.state.clone().step(event);
        self.state = state;
        for effect in effects {
            match effect {
                Effect::HandOut => self.hand_out(),
                Effect::Enqueue => {}
                Effect::Create => {
                    let factory = Arc::clone(&self.factory);
                    self.work.push(Box::pin(async move { Done::Created(factory.create().await) }));
                }
                Effect::BackOff(span) => self.work.push(Box::pin(async move {
                    tokio::time::sleep(span).await;
                    Done::BackoffOver
                })),
            }
        }
        self.publish.send_if_modified(|status| {
            let changed = status.ready != self.state.ready;
            status.ready = self.state.ready;
            changed
        });
    }

    fn hand_out(&mut self) {
        if let (Some(waiter), Some((serial, item))) = (self.waiting.pop_front(), self.ready.pop_front())
            && let Err(item) = waiter.send(item)
        {
            // The caller was cancelled at this moment: put the item back and correct the count.
            self.ready.push_front((serial, item));
            self.state.ready += 1;
        }
    }

    fn drop_cancelled_requests(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|waiter| !waiter.is_closed());
        for _ in self.waiting.len()..before {
            self.apply(Event::GaveUp, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Numbers {
        made: Arc<AtomicUsize>,
        fail_first: usize,
    }

    impl Factory for Numbers {
        type Item = usize;
        fn create(&self) -> BoxFuture<'_, Result<usize, CreateFailed>> {
            Box::pin(async {
                let number = self.made.fetch_add(1, Ordering::SeqCst);
                if number < self.fail_first { Err(format!("failure {number}")) } else { Ok(number) }
            })
        }
        fn gone(&self, _item: &usize) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
        fn discard(&self, _item: usize) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_handed_out_once_and_replaced() {
        let scope = TaskScope::new("test");
        let pool = WarmPool::start(&scope, Numbers::default(), 2);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            assert!(seen.insert(pool.lease(Deadline::after(Duration::from_secs(1))).await.unwrap()));
        }
        let mut status = pool.status();
        status.wait_for(|status| status.ready == 2).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_waits_out_failures_within_its_deadline_and_says_why_beyond_it() {
        let scope = TaskScope::new("test");
        let pool = WarmPool::start(&scope, Numbers { fail_first: 3, ..Numbers::default() }, 1);
        assert!(pool.lease(Deadline::after(Duration::from_secs(5))).await.is_ok());
        let broken = WarmPool::start(&scope, Numbers { fail_first: usize::MAX, ..Numbers::default() }, 1);
        let error = broken.lease(Deadline::after(Duration::from_secs(1))).await.unwrap_err();
        assert!(matches!(&error, LeaseError::Deadline(Some(why)) if why.starts_with("failure")), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gave_up_takes_nothing_with_it() {
        let scope = TaskScope::new("test");
        let pool = WarmPool::start(&scope, Numbers { fail_first: 5, ..Numbers::default() }, 1);
        assert!(pool.lease(Deadline::after(Duration::from_millis(1))).await.is_err());
        assert_eq!(pool.lease(Deadline::after(Duration::from_secs(60))).await, Ok(5));
    }
}

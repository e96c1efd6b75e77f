//! Calls a function without a pause, and counts what is answered and what is not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use crate::world::World;

/// How many call at once.
const CALLERS: usize = 4;

/// Callers of one function, until they are told to stop. The function answers with a text that begins with `reply`.
pub(crate) struct Callers {
    counts: Arc<Counts>,
    calls: Vec<JoinHandle<()>>,
}

/// Calls that were answered, and that were not.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Callers {
    pub(crate) fn start(world: &World, subject: &'static str) -> Self {
        let (nats, counts) = (world.client(), Arc::new(Counts::default()));
        let runtime = world.block_on(async { tokio::runtime::Handle::current() });
        let calls = (0..CALLERS).map(|_| {
            let (nats, counts) = (nats.clone(), Arc::clone(&counts));
            runtime.spawn(async move { counts.call(nats, subject).await })
        });
        Self { calls: calls.collect(), counts }
    }

    /// How many were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Acquire)
    }

    /// Ends them; fails the test if any call was not answered.
    #[track_caller]
    pub(crate) fn all_were_answered(self, world: &World) {
        self.counts.stop.store(true, Ordering::Release);
        for calls in self.calls {
            world.block_on(calls).unwrap();
        }
        let (answered, failed) = (self.counts.answered.load(Ordering::Acquire), self.counts.failed.lock().unwrap());
        assert!(failed.is_empty() && answered > 500, "{answered} answered; failed: {failed:?}");
    }
}

impl Counts {
    async fn call(&self, nats: async_nats::Client, subject: &'static str) {
        while !self.stop.load(Ordering::Acquire) {
            let answer = nats.request(subject, "".into()).await;
            let is_reply = answer.as_ref().is_ok_and(|it| it.headers.is_none() && it.payload.starts_with(b"\"reply"));
            if is_reply {
                self.answered.fetch_add(1, Ordering::AcqRel);
            } else {
                self.failed.lock().unwrap().push(format!("{answer:?}"));
            }
        }
    }
}

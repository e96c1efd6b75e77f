//! Processor time of a call whose work is spread over the polls of a future, on whichever thread.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nex_engine::thread_cpu_time;

/// What a call has used, and may use.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    limit: Duration,
    /// Nanoseconds of the polls before this one.
    used: AtomicU64,
    /// Nanoseconds that the present poll's thread had used when it began.
    began: AtomicU64,
}

impl CpuMeter {
    pub(crate) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), began: AtomicU64::new(0) })
    }

    /// Whether the limit is reached; asked while the call is polled.
    pub(crate) fn is_spent(&self) -> bool {
        let now = nanos(thread_cpu_time()).saturating_sub(self.began.load(Ordering::Relaxed));
        Duration::from_nanos(self.used.load(Ordering::Relaxed).saturating_add(now)) >= self.limit
    }

    /// Runs a call, counting what its polls cost.
    pub(crate) async fn measure<F: Future + Send>(&self, call: F) -> F::Output {
        let mut call = Box::pin(call);
        std::future::poll_fn(|context| self.poll(call.as_mut(), context)).await
    }

    fn poll<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = nanos(thread_cpu_time());
        self.began.store(began, Ordering::Relaxed);
        let polled = call.poll(context);
        self.used.fetch_add(nanos(thread_cpu_time()).saturating_sub(began), Ordering::Relaxed);
        // Nothing counts twice when this is asked once more after the last poll.
        self.began.store(u64::MAX, Ordering::Relaxed);
        polled
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

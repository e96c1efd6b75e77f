//! Epoch ticker: a thread that advances the epoch while calls run, so that instances can be interrupted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// Epoch length: an instance yields to other tasks after this time, and its time limit is this precise.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a call before the thread sleeps; waking it costs more than a tick.
const IDLE_TICKS: u32 = 50;

#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

/// Keeps the epoch advancing while it exists.
#[derive(Debug)]
pub(crate) struct Ticking<'a>(&'a Shared);

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let engine = engine.weak();
        let own = Arc::clone(&shared);
        let run = move || {
            let mut idle = 0;
            while !own.over.load(Ordering::SeqCst) {
                if own.calls.load(Ordering::SeqCst) > 0 {
                    idle = 0;
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                } else {
                    idle += 1;
                }
                if idle <= IDLE_TICKS {
                    thread::park_timeout(TICK);
                    continue;
                }
                own.asleep.store(true, Ordering::SeqCst);
                // A call may have begun before the store: check again before sleeping.
                if own.calls.load(Ordering::SeqCst) == 0 && !own.over.load(Ordering::SeqCst) {
                    thread::park();
                }
                own.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
        };
        let thread = thread::Builder::new().name("wasm-epoch".to_owned()).stack_size(64 * 1024).spawn(run)?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub(crate) fn tick(&self) -> Ticking<'_> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(&self.shared)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

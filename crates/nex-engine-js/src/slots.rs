//! How many workers all scripts of this process have together. Whoever wants one more waits in line; idle workers make room, and busy
//! ones do after their turn.
//!
//! ```text
//! want ─► a slot ─► worker ─► given back ─► the next in line, if anybody is
//!   └──► in line: the longest idle worker is woken, and ends
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// Most workers of a process, each with a thread and a loaded script.
const MAX_WORKERS: usize = 64;

/// Those of this process.
pub(crate) static SLOTS: Slots = Slots::new(MAX_WORKERS);

/// A script as the others see it.
pub(crate) trait Tenant: Send + Sync {
    /// It has the slot that it waited for.
    fn granted(self: Arc<Self>);
    /// Whether it has still a use for one.
    fn is_in_want(&self) -> bool;
    /// Whether it has a worker, or will have one.
    fn has_workers(&self) -> bool;
    /// Since when a worker of it waits for calls, if one does; wakes that worker where it is told to.
    fn idle(&self, wake: bool) -> Option<Instant>;
}

/// A bounded number of workers.
pub(crate) struct Slots {
    state: Mutex<State>,
    /// Whether anybody is in line.
    wanted: AtomicBool,
    scripts: AtomicUsize,
}

struct State {
    most: usize,
    taken: usize,
    line: VecDeque<Weak<dyn Tenant>>,
    /// Those that had a worker lately.
    loaded: Vec<Weak<dyn Tenant>>,
}

impl Slots {
    const fn new(most: usize) -> Self {
        let state = State { most, taken: 0, line: VecDeque::new(), loaded: Vec::new() };
        Self { state: Mutex::new(state), wanted: AtomicBool::new(false), scripts: AtomicUsize::new(0) }
    }

    /// Takes a slot, or a place in line.
    pub(crate) fn take(&self, tenant: &Arc<dyn Tenant>) -> bool {
        let mut state = self.lock();
        if state.taken < state.most && state.line.is_empty() {
            state.take(tenant);
            return true;
        }
        state.line.push_back(Arc::downgrade(tenant));
        self.wanted.store(true, Ordering::SeqCst);
        state.loaded.retain(|it| it.strong_count() > 0);
        let loaded: Vec<_> = state.loaded.iter().filter_map(Weak::upgrade).collect();
        // They lock themselves, and are busy with this meanwhile.
        drop(state);
        let longest = loaded.iter().filter_map(|it| Some((it.idle(false)?, it))).min_by_key(|(since, _)| *since);
        if let Some((_, tenant)) = longest {
            tenant.idle(true);
        }
        false
    }

    /// Gives a slot back, to the next in line if there is one.
    pub(crate) fn give_back(&self) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(1);
        let mut granted = Vec::new();
        while state.taken < state.most
            && let Some(next) = state.line.pop_front()
        {
            let Some(next) = next.upgrade() else { continue };
            state.take(&next);
            granted.push(next);
        }
        self.wanted.store(!state.line.is_empty(), Ordering::SeqCst);
        drop(state);
        for tenant in granted {
            if tenant.is_in_want() { tenant.granted() } else { self.give_back() }
        }
    }

    /// There is no memory for as many workers as there are: from now on there is one less. Says whether there are others.
    pub(crate) fn lower(&self) -> bool {
        let mut state = self.lock();
        let others = state.taken > 1;
        state.most = state.most.min(state.taken.saturating_sub(1)).max(1);
        others
    }

    /// Whether somebody waits for a worker to end.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// One script more in this process.
    pub(crate) fn enter(&self) {
        self.scripts.fetch_add(1, Ordering::SeqCst);
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.scripts.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether this process has one script: that one need not be unloaded.
    pub(crate) fn is_alone(&self) -> bool {
        self.scripts.load(Ordering::SeqCst) <= 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, tenant: &Arc<dyn Tenant>) {
        self.taken += 1;
        let tenant = Arc::downgrade(tenant);
        if !self.loaded.iter().any(|it| it.ptr_eq(&tenant)) {
            if self.loaded.len() >= 4 * self.most {
                self.loaded.retain(|it| it.upgrade().is_some_and(|it| it.has_workers()));
            }
            self.loaded.push(tenant);
        }
    }
}

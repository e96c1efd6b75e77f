//! The same concurrency limit for each key: a tenant, a workload, an issuer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The same number of permits for each name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares {
    each: usize,
    taken: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// One permit of a share; returned when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    who: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// So many permits for each.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// A permit, if there is one now.
    #[must_use]
    pub fn try_take(&self, who: &str) -> Option<Share> {
        let permit = self.of(who).try_acquire_owned().ok()?;
        Some(Share { shares: self.clone(), who: who.to_owned(), permit: Some(permit) })
    }

    /// A permit, as soon as there is one.
    pub async fn take(&self, who: &str) -> Share {
        let mut share = Share { shares: self.clone(), who: who.to_owned(), permit: None };
        // The semaphore is never closed.
        share.permit = self.of(who).acquire_owned().await.ok();
        share
    }

    fn of(&self, who: &str) -> Arc<Semaphore> {
        let mut taken = self.lock();
        Arc::clone(taken.entry(who.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        drop(self.permit.take());
        // No other permit is held or awaited: remove the entry, so the map stays small.
        if taken.get(&self.who).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            taken.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_share_waits_for_its_own_kind_only_and_leaves_nothing() {
        let shares = Shares::new(1);
        let one = shares.take("a").await;
        let other = shares.take("b").await;
        assert!(shares.try_take("a").is_none());
        let (next, ()) = tokio::join!(shares.take("a"), async { drop(one) });
        drop((next, other));
        assert!(shares.lock().is_empty());
    }
}

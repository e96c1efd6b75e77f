//! Room for requests: bounded in number and in bytes, for all together and for each tenant, so that nobody's slow or large requests
//! keep others from being answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in pieces of this size.
const PIECE: usize = 1024;

/// Requests of one kind, waiting or under way.
#[derive(Debug)]
pub(super) struct Lane {
    requests: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    namespaces: Shares,
}

/// A request's place in its lane; given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    _request: OwnedSemaphorePermit,
    _pieces: OwnedSemaphorePermit,
    _namespace: Option<Share>,
}

impl Lane {
    /// A lane for so many requests and bytes; one namespace never has more than a quarter of the requests.
    pub(super) fn new(requests: usize, bytes: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            pieces: Arc::new(Semaphore::new(bytes / PIECE)),
            namespaces: Shares::new(requests.div_ceil(4)),
        }
    }

    /// Takes a request in, unless the lane is full.
    pub(super) fn enter(&self, bytes: usize, namespace: Option<&str>) -> Option<Ticket> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).ok()?;
        let namespace = match namespace {
            Some(namespace) => Some(self.namespaces.try_take(namespace)?),
            None => None,
        };
        Some(Ticket {
            _request: Arc::clone(&self.requests).try_acquire_owned().ok()?,
            _pieces: Arc::clone(&self.pieces).try_acquire_many_owned(pieces).ok()?,
            _namespace: namespace,
        })
    }
}

/// The same number of permits for everybody who comes, by name. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    each: usize,
    taken: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// One permit of somebody's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    who: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// So many permits for each.
    pub(super) fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// A permit, if there is one now.
    fn try_take(&self, who: &str) -> Option<Share> {
        let permit = self.of(who).try_acquire_owned().ok()?;
        Some(Share { shares: self.clone(), who: who.to_owned(), permit: Some(permit) })
    }

    /// A permit, as soon as there is one.
    pub(super) async fn take(&self, who: &str) -> Share {
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
        // Nobody else holds or awaits a permit: the map stays as small as what is under way.
        if taken.get(&self.who).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            taken.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_bounded_in_requests_bytes_and_for_each_namespace() {
        let lane = Lane::new(4, 10 * PIECE);
        let first = lane.enter(1, Some("a")).unwrap();
        assert!(lane.enter(1, Some("a")).is_none(), "one namespace has a quarter");
        assert!(lane.enter(10 * PIECE, Some("b")).is_none(), "there is less room in bytes");
        let rest: Vec<_> = (0..3).map(|_| lane.enter(1, None).unwrap()).collect();
        assert!(lane.enter(1, None).is_none());
        drop((first, rest));
        assert!(lane.enter(10 * PIECE, Some("a")).is_some(), "what was refused or given back takes no room");
    }

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

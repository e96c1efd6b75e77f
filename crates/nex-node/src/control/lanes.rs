//! Room for requests: bounded in number and in bytes, for all together and for each tenant, so that nobody's slow or large requests
//! keep others from being answered.

use std::sync::Arc;

use nex_process::shares::{Share, Shares};
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
}

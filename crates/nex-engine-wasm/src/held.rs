//! Bytes that wait in the host for an instance, or for a host service: bounded together, since its memory does not count them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes that wait for one call: two of the largest bodies.
const MAX_HELD: usize = 16 * 1024 * 1024;

/// The room that a call has.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// A body that takes up room until its last piece is gone.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// There is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HELD)))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Full> {
        let count = u32::try_from(bytes).map_err(|_over| Full)?;
        Arc::clone(&self.0).try_acquire_many_owned(count).map_err(|_none| Full)
    }

    /// Holds a body.
    pub(crate) fn hold(&self, bytes: Vec<u8>) -> Result<Held, Full> {
        let room = self.take(bytes.len())?;
        Ok(Held { bytes, room: Some(room) })
    }

    /// Adds to what is held.
    pub(crate) fn add(&self, held: &mut Held, more: &[u8]) -> Result<(), Full> {
        let room = self.take(more.len())?;
        match &mut held.room {
            Some(taken) => taken.merge(room),
            none => *none = Some(room),
        }
        held.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_again_when_the_last_piece_of_a_body_is_gone() {
        let room = Room::new();
        let mut held = room.hold(vec![0; MAX_HELD - 4]).unwrap();
        room.add(&mut held, b"four").unwrap();
        assert_eq!(room.hold(vec![0; 1]).unwrap_err(), Full);
        let whole = held.into_bytes();
        let piece = whole.slice(3..5);
        drop(whole);
        assert_eq!(room.hold(vec![0; 1]).unwrap_err(), Full);
        drop(piece);
        assert_eq!(room.hold(vec![0; MAX_HELD]).unwrap().len(), MAX_HELD);
    }
}

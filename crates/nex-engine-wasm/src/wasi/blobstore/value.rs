//! Values of `wasi:blobstore`: what was read of an object, and what is written of one until it is whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::held::{Held, Room};
use crate::host::MAX_BODY;

/// Most bytes of one write.
const MAX_WRITE: usize = 64 * 1024;

/// An object, or a part of it, as it was when it was read.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Incoming(pub(crate) Bytes);

/// An object that is being written.
#[derive(Default)]
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Outgoing {
    body: Arc<Mutex<Held>>,
    is_open: bool,
    /// The names under which it is put when it is finished.
    pub(crate) targets: Vec<String>,
}

impl Outgoing {
    /// The stream that its bytes are written to; there is one.
    pub(crate) fn open(&mut self, room: &Room) -> Option<Writing> {
        let is_first = !std::mem::replace(&mut self.is_open, true);
        is_first.then(|| Writing { body: Arc::clone(&self.body), room: room.clone() })
    }

    /// All that was written.
    pub(crate) fn finish(&self) -> Bytes {
        std::mem::take(&mut *lock(&self.body)).into_bytes()
    }
}

/// The stream of an object that is being written.
pub(crate) struct Writing {
    body: Arc<Mutex<Held>>,
    room: Room,
}

fn lock(body: &Mutex<Held>) -> MutexGuard<'_, Held> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OutputStream for Writing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut body = lock(&self.body);
        let too_large = || StreamError::LastOperationFailed(wasmtime::Error::msg("an object has at most 7 MiB here"));
        if body.len().saturating_add(bytes.len()) > MAX_BODY {
            return Err(too_large());
        }
        self.room.add(&mut body, &bytes).map_err(|_full| too_large())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writing {
    async fn ready(&mut self) {}
}

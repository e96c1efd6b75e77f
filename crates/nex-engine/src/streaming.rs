//! A response that a function sends piece by piece while it runs, to somebody who takes it at his own pace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::agent::streaming::{MAX_BYTES, MAX_PIECE, MAX_PIECES};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for whoever takes them.
const WAITING: usize = 16;

/// The function's end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Streaming {
    head: Arc<Mutex<Option<oneshot::Sender<Headers>>>>,
    pieces: mpsc::Sender<Bytes>,
    sent: Arc<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    bytes: AtomicU64,
    pieces: AtomicU64,
}

/// The end of whoever called it.
#[derive(Debug)]
pub struct Streamed {
    /// The head, if the function sends its response piece by piece; an answer of the call itself is whole.
    pub head: oneshot::Receiver<Headers>,
    /// The pieces, none of them empty, all before the call ends.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// Why a piece was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Nobody takes it.
    #[error("nobody takes the response any more: whoever asked has gone away")]
    Gone,
    /// It is one too many.
    #[error("a response has at most {MAX_BYTES} bytes and {MAX_PIECES} pieces")]
    TooMuch,
}

/// Both ends of a response.
#[must_use]
pub fn streaming() -> (Streaming, Streamed) {
    let ((head, begun), (pieces, taken)) = (oneshot::channel(), mpsc::channel(WAITING));
    let streaming = Streaming { head: Arc::new(Mutex::new(Some(head))), pieces, sent: Arc::default() };
    (streaming, Streamed { head: begun, pieces: taken })
}

impl Streaming {
    /// Begins the response.
    ///
    /// # Errors
    /// [`NotSent::Gone`], also where it was begun before.
    pub fn begin(&self, headers: Headers) -> Result<(), NotSent> {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).take();
        head.and_then(|head| head.send(headers).ok()).ok_or(NotSent::Gone)
    }

    /// Sends a piece, as soon as there is room for it.
    ///
    /// # Errors
    /// [`NotSent`]
    pub async fn send(&self, piece: &[u8]) -> Result<(), NotSent> {
        self.count(piece.len())?;
        for part in piece.chunks(MAX_PIECE) {
            self.pieces.send(Bytes::copy_from_slice(part)).await.map_err(|_gone| NotSent::Gone)?;
        }
        Ok(())
    }

    fn count(&self, bytes: usize) -> Result<(), NotSent> {
        let bytes = self.sent.bytes.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        let pieces = self.sent.pieces.fetch_add(1, Ordering::Relaxed) + 1;
        if bytes > MAX_BYTES || pieces > MAX_PIECES { Err(NotSent::TooMuch) } else { Ok(()) }
    }
}

impl Streamed {
    /// What is there, after its first piece: as much as goes together.
    #[must_use]
    pub fn joined(&mut self, first: Bytes) -> Bytes {
        let Ok(second) = self.pieces.try_recv() else { return first };
        let mut all = Vec::with_capacity(first.len() + second.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while all.len() < MAX_PIECE
            && let Ok(more) = self.pieces.try_recv()
        {
            all.extend_from_slice(&more);
        }
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_in_order_within_their_bounds_and_nobody_sends_to_nobody() {
        let (streaming, mut streamed) = streaming();
        streaming.begin(vec![("A".to_owned(), "b".to_owned())]).unwrap();
        assert_eq!(streaming.begin(Headers::new()), Err(NotSent::Gone));
        assert_eq!((&mut streamed.head).await.unwrap().len(), 1);
        streaming.send(&vec![1; MAX_PIECE + 1]).await.unwrap();
        for piece in [b"".as_slice(), b"two", b"three"] {
            streaming.send(piece).await.unwrap();
        }
        assert_eq!(streamed.pieces.recv().await.unwrap().len(), MAX_PIECE);
        let second = streamed.pieces.recv().await.unwrap();
        assert_eq!(streamed.joined(second), Bytes::from_static(b"\x01twothree"));
        streaming.sent.pieces.store(MAX_PIECES, Ordering::Relaxed);
        assert_eq!(streaming.send(b"x").await, Err(NotSent::TooMuch));
        streaming.sent.pieces.store(0, Ordering::Relaxed);
        drop(streamed);
        assert_eq!(streaming.send(b"x").await, Err(NotSent::Gone));
    }
}

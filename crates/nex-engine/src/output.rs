//! The way of a workload's lines out of the engine: bounded, and never blocking the workload's caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// Longest line passed on, in bytes; the rest of a longer one is cut.
pub const LINE_BYTES: usize = 16 * 1024;

/// Which of its streams a workload wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, `console.log`.
    Stdout,
    /// Standard error, `console.error`, the engine's own words about a failed call.
    Stderr,
}

/// One line, without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// At most [`LINE_BYTES`] bytes.
    pub text: String,
}

/// The writing end. When the reader falls behind, lines are dropped and counted: a chatty workload never slows itself by logging.
#[derive(Debug, Clone)]
pub struct Output {
    lines: mpsc::Sender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Output {
    /// A writing end and its reading end, `capacity` lines between them.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Line>) {
        let (lines, receiver) = mpsc::channel(capacity);
        (Self { lines, dropped: Arc::default() }, receiver)
    }

    /// Writes one line, or counts it as dropped.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > LINE_BYTES {
            let cut = (0..=LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        if self.lines.try_send(Line { stream, text }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped since the last time this was asked.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

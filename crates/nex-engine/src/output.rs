//! Output lines of a workload: bounded, and never blocking the workload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// Longest line, in bytes; longer ones are truncated.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Output stream of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, `console.log`.
    Stdout,
    /// Standard error, `console.error`, and the engine's messages about failed calls.
    Stderr,
}

/// One line, without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The stream it was written to.
    pub stream: Stream,
    /// At most [`MAX_LINE_BYTES`] bytes.
    pub text: String,
}

/// The writing end. When the reader falls behind, lines are dropped and counted, so that logging never slows the workload.
#[derive(Debug, Clone)]
pub struct Output {
    lines: mpsc::Sender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Output {
    /// Creates a channel that buffers `capacity` lines.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Line>) {
        let (lines, receiver) = mpsc::channel(capacity);
        (Self { lines, dropped: Arc::default() }, receiver)
    }

    /// Writes one line, or counts it as dropped.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > MAX_LINE_BYTES {
            let cut = (0..=MAX_LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        if self.lines.try_send(Line { stream, text }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of lines dropped since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// Splits the bytes of a stream into lines. Invalid UTF-8 is replaced, a line over [`MAX_LINE_BYTES`] is truncated, and an
/// unterminated line is written on drop.
#[derive(Debug)]
pub struct LineWriter {
    output: Output,
    stream: Stream,
    pending: Vec<u8>,
}

impl LineWriter {
    /// Creates a writer for `stream`.
    #[must_use]
    pub fn new(output: Output, stream: Stream) -> Self {
        Self { output, stream, pending: Vec::new() }
    }

    /// Writes bytes; every complete line is passed on.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.buffer(piece);
            self.flush_line();
        }
        self.buffer(last);
    }

    fn buffer(&mut self, piece: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.pending.len());
        self.pending.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn flush_line(&mut self) {
        let line = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
        self.output.line(self.stream, String::from_utf8_lossy(line));
        self.pending.clear();
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.flush_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let (output, mut lines) = Output::channel(64);
        let mut writer = LineWriter::new(output, Stream::Stdout);
        pieces.iter().for_each(|piece| writer.write(piece));
        drop(writer);
        std::iter::from_fn(|| lines.try_recv().ok()).map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_joined_from_pieces_and_the_last_one_needs_no_line_end() {
        assert_eq!(lines_of(&[b"one\ntw", b"o\r\n", b"\nlast"]), ["one", "two", "", "last"]);
        assert!(lines_of(&[b"", b""]).is_empty());
    }

    #[test]
    fn invalid_text_is_replaced_and_a_long_line_is_cut_without_eating_the_next() {
        assert_eq!(lines_of(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        let lines = lines_of(&[&long, &long, b"\nnext\n"]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, 4]);
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_once() {
        let (output, _lines) = Output::channel(1);
        (0..5).for_each(|_| output.line(Stream::Stderr, "word"));
        assert_eq!((output.take_dropped(), output.take_dropped()), (4, 0));
    }
}

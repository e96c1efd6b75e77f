//! Output lines of a workload: bounded in length, number and bytes, and never blocking the workload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// Longest line, in bytes; longer ones are truncated, and say so.
pub const MAX_LINE_BYTES: usize = 16 * 1024;
/// Bytes of lines that may wait for their reader.
pub const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// End of a line that was truncated.
const CUT: &str = " [line cut]";

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
    backlog: Arc<Backlog>,
}

/// What the two ends know of each other.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The reading end.
#[derive(Debug)]
pub struct Lines {
    lines: mpsc::Receiver<Line>,
    backlog: Arc<Backlog>,
}

impl Output {
    /// Creates a channel that buffers `capacity` lines, of [`MAX_WAITING_BYTES`] together.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, Lines) {
        let (lines, receiver) = mpsc::channel(capacity);
        let backlog = Arc::<Backlog>::default();
        (Self { lines, backlog: Arc::clone(&backlog) }, Lines { lines: receiver, backlog })
    }

    /// Writes one line, or counts it as dropped.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > MAX_LINE_BYTES {
            let cut = (0..=MAX_LINE_BYTES - CUT.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
            text.push_str(CUT);
            text.shrink_to_fit();
        }
        let bytes = text.len();
        let waiting = self.backlog.bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting.saturating_add(bytes) > MAX_WAITING_BYTES || self.lines.try_send(Line { stream, text }).is_err() {
            self.backlog.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lines {
    /// The next line; nothing when all writers are gone and everything was read.
    ///
    /// # Cancel safety
    /// No line is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Line> {
        let line = self.lines.recv().await?;
        Some(self.taken(line))
    }

    /// The next line if one waits.
    pub fn try_recv(&mut self) -> Option<Line> {
        let line = self.lines.try_recv().ok()?;
        Some(self.taken(line))
    }

    /// Number of lines dropped since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.backlog.dropped.swap(0, Ordering::Relaxed)
    }

    fn taken(&self, line: Line) -> Line {
        self.backlog.bytes.fetch_sub(line.text.len(), Ordering::AcqRel);
        line
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
        // One byte more than a line has, so that it is seen to be too long.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.pending.len());
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
        std::iter::from_fn(|| lines.try_recv()).map(|line| line.text).collect()
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
        assert!(lines[0].ends_with(CUT));
        assert!(!lines_of(&[&vec![b'x'; MAX_LINE_BYTES], b"\n"])[0].ends_with(CUT), "one of exactly that length is whole");
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_once() {
        let (output, lines) = Output::channel(1);
        (0..5).for_each(|_| output.line(Stream::Stderr, "word"));
        assert_eq!((lines.take_dropped(), lines.take_dropped()), (4, 0));
    }

    #[test]
    fn bytes_that_nobody_reads_are_bounded_and_room_comes_back() {
        let (output, mut lines) = Output::channel(100_000);
        let long = "x".repeat(MAX_LINE_BYTES);
        let fitting = MAX_WAITING_BYTES / MAX_LINE_BYTES;
        (0..fitting + 3).for_each(|_| output.line(Stream::Stdout, long.as_str()));
        assert_eq!(lines.take_dropped(), 3);
        assert!(lines.try_recv().is_some());
        output.line(Stream::Stdout, long.as_str());
        output.line(Stream::Stdout, "one more");
        assert_eq!(lines.take_dropped(), 1);
        assert_eq!(std::iter::from_fn(|| lines.try_recv()).count(), fitting);
    }
}

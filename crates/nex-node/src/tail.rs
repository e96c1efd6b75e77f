//! The last lines of each workload, in memory: bounded in bytes for each and for the node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_protocol::control;
use nex_protocol::log::Level;

use crate::clock;

/// Most bytes kept of one workload.
const OF_A_WORKLOAD: usize = 64 * 1024;
/// Most bytes kept in all; beyond, each workload keeps what it is sure of and no more.
const IN_ALL: usize = 16 * 1024 * 1024;
/// What each workload is sure of.
const ENSURED: usize = 2 * 1024;
/// Longest line kept, bytes.
const LINE: usize = 1024;
/// Lines told of a failure, and characters of each.
const WORDS: usize = 10;
const CHARACTERS: usize = 200;
/// What a line costs besides its text.
const OVERHEAD: usize = std::mem::size_of::<TailLine>();

/// Bytes kept in all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tails {
    bytes: Arc<AtomicUsize>,
}

/// The last lines of one workload.
#[derive(Debug)]
pub struct Tail {
    all: Tails,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<TailLine>,
    bytes: usize,
}

/// A line that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailLine {
    /// When, seconds since 1970.
    pub at: i64,
    /// How serious it is.
    pub level: Level,
    /// Its text, cut where it is long.
    pub text: Box<str>,
}

impl Tails {
    /// An empty tail.
    #[must_use]
    pub fn open(&self) -> Arc<Tail> {
        Arc::new(Tail { all: self.clone(), kept: Mutex::default() })
    }
}

impl Tail {
    /// Keeps a line; the oldest go where there is no room.
    pub fn push(&self, level: Level, text: &str) {
        let text: Box<str> = text.get(..text.floor_char_boundary(LINE)).unwrap_or_default().trim_end().into();
        let bytes = text.len() + OVERHEAD;
        let mut kept = self.lock();
        kept.lines.push_back(TailLine { at: clock::unix_seconds(), level, text });
        kept.bytes += bytes;
        let mut all = self.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        while kept.bytes > if all > IN_ALL { ENSURED } else { OF_A_WORKLOAD } {
            let Some(oldest) = kept.lines.pop_front() else { break };
            let bytes = oldest.text.len() + OVERHEAD;
            kept.bytes -= bytes;
            all = self.all.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        }
    }

    /// The last lines, so many at most, in order.
    #[must_use]
    pub fn last(&self, most: usize) -> Vec<TailLine> {
        let kept = self.lock();
        kept.lines.iter().skip(kept.lines.len().saturating_sub(most)).cloned().collect()
    }

    /// The last lines, so many and of so many bytes at most, in order, as the wire has them.
    #[must_use]
    pub fn last_within(&self, most: usize, mut bytes: usize) -> Vec<control::TailLine> {
        let mut lines = Vec::new();
        for line in self.last(most).into_iter().rev() {
            // Twice its length, should much of it have to be escaped, and the rest of its JSON.
            let cost = line.text.len() * 2 + 64;
            if cost > bytes {
                break;
            }
            bytes -= cost;
            lines.push(control::TailLine { at: line.at, level: line.level, text: line.text.into() });
        }
        lines.reverse();
        lines
    }

    /// The last lines of errors, or of anything if there are none: what a workload said before it ended.
    #[must_use]
    pub fn final_lines(&self, most: usize) -> Vec<TailLine> {
        let kept = self.lock();
        let is_error = |line: &&TailLine| line.level == Level::Error;
        let mut words: Vec<TailLine> = kept.lines.iter().rev().filter(is_error).take(most).cloned().collect();
        if words.is_empty() {
            words = kept.lines.iter().rev().take(most).cloned().collect();
        }
        words.reverse();
        words
    }

    /// The end of a sentence about its failure: its final lines as they can be shown on any terminal.
    #[must_use]
    pub fn final_text(&self) -> String {
        let last = self.final_lines(WORDS);
        let mut text = if last.is_empty() { "; it wrote nothing" } else { "; its last lines:" }.to_owned();
        for line in last {
            text.push_str("\n  ");
            let printable = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
            text.extend(line.text.chars().take(CHARACTERS).map(printable));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.lock().bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[TailLine]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn the_last_lines_stay_and_errors_are_the_final_ones() {
        let tail = Tails::default().open();
        assert!(tail.final_lines(3).is_empty());
        tail.push(Level::Info, "one\n");
        assert_eq!(texts(&tail.final_lines(3)), ["one"]);
        tail.push(Level::Error, "two");
        tail.push(Level::Info, &"ü".repeat(LINE));
        assert_eq!(texts(&tail.final_lines(3)), ["two"]);
        assert_eq!(tail.last(2)[1].text.len(), LINE);
        assert_eq!(tail.last(2).len(), 2);
    }

    #[test]
    fn bytes_are_bounded_for_each_and_for_all_and_given_back() {
        let tails = Tails::default();
        let all = || tails.bytes.load(Ordering::Relaxed);
        let many: Vec<_> = (0..400).map(|_| tails.open()).collect();
        for tail in &many {
            for _ in 0..200 {
                tail.push(Level::Info, &"x".repeat(500));
            }
            assert!(tail.lock().bytes <= OF_A_WORKLOAD && !tail.last(1).is_empty());
        }
        assert!(all() <= IN_ALL + many.len() * (ENSURED + LINE + OVERHEAD), "{}", all());
        drop(many);
        assert_eq!(all(), 0);
    }
}

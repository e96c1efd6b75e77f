//! An agent's output: rate-limited debug lines, and the last lines of standard error for the exit report.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nex_process::{LineSink, Output};

use crate::id::SandboxId;

/// Lines of one stream that are logged per second; more are counted, not kept.
const LINES_PER_SECOND: u32 = 100;
/// Lines of standard error that are kept.
const LAST_LINES: usize = 20;
const MAX_CHARS: usize = 500;
/// Lines and characters of it that an error shows.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARS: usize = 200;

/// The last lines of standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct StderrTail(Arc<Mutex<VecDeque<String>>>);

impl StderrTail {
    pub(crate) fn get(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn add(&self, line: &str) {
        let mut lines = self.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        // They are shown in errors and events, so control characters are removed.
        lines.push_back(line.chars().filter(|letter| !letter.is_control()).take(MAX_CHARS).collect());
    }

    /// The end of it in one line, for an error.
    pub(crate) fn shown(&self) -> String {
        let lines = self.lock();
        let shown = lines.iter().filter(|line| !line.trim().is_empty()).rev().take(SHOWN_LINES);
        let mut shown: Vec<String> = shown.map(|line| line.chars().take(SHOWN_CHARS).collect()).collect();
        shown.reverse();
        if shown.is_empty() { "nothing".to_owned() } else { shown.join(" / ") }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink that logs lines of an agent. *Trust:* they are escaped, cut and counted.
pub(crate) fn to_log(id: &SandboxId, stream: &'static str, stderr_tail: Option<StderrTail>) -> Output {
    Output::Lines(to_line_sink(id, stream, stderr_tail))
}

/// The same, as a bare sink of lines.
pub(crate) fn to_line_sink(id: &SandboxId, stream: &'static str, stderr_tail: Option<StderrTail>) -> LineSink {
    let (id, gate) = (id.clone(), Mutex::new(Gate::default()));
    Arc::new(move |line: &str| {
        if let Some(stderr_tail) = &stderr_tail {
            stderr_tail.add(line);
        }
        let verdict = gate.lock().unwrap_or_else(PoisonError::into_inner).ask(Instant::now());
        let line: String = line.chars().take(MAX_CHARS).collect();
        match verdict {
            Verdict::Pass { dropped: 0 } => tracing::debug!(agent_id = %id, stream, ?line, "agent output"),
            Verdict::Pass { dropped } => tracing::debug!(agent_id = %id, stream, ?line, dropped, "agent output rate-limited"),
            Verdict::Drop => {}
        }
    })
}

#[derive(Debug, Default)]
struct Gate {
    since: Option<Instant>,
    passed: u32,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass { dropped: u64 },
    Drop,
}

impl Gate {
    fn ask(&mut self, now: Instant) -> Verdict {
        let fresh = self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1));
        if fresh {
            let dropped = self.dropped;
            *self = Self { since: Some(now), passed: 1, dropped: 0 };
            return Verdict::Pass { dropped };
        }
        if self.passed < LINES_PER_SECOND {
            self.passed += 1;
            return Verdict::Pass { dropped: 0 };
        }
        self.dropped += 1;
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let passed = (0..1000).filter(|_| gate.ask(start) != Verdict::Drop).count();
        assert_eq!(passed, 100);
        assert_eq!(gate.ask(start + Duration::from_secs(1)), Verdict::Pass { dropped: 900 });
    }

    #[test]
    fn only_the_last_lines_of_stderr_are_kept() {
        let tail = StderrTail::default();
        for number in 0..50 {
            tail.add(&format!("{number}"));
        }
        assert_eq!(tail.get().len(), 20);
        assert_eq!(tail.get().last().map(String::as_str), Some("49"));
        tail.add(" \u{7}");
        tail.add("\u{1b}[2Jcleared");
        assert_eq!(tail.shown(), "48 / 49 / [2Jcleared");
        assert_eq!(StderrTail::default().shown(), "nothing");
    }
}

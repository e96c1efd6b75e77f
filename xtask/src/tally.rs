//! Counts tests, and keeps what failed, and why, to be said once more at the end.

use std::fmt;

/// Lines kept from where a test panicked: they say where and why. What it logged before is longer than anybody reads here.
const MAX_LINES: usize = 12;

/// The counts, read from the output of test programs, and what cargo said of those that failed. A program that dies counts no test,
/// and what was said of it is far above by the end of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    /// A test that failed, a program that did not end well and how; in their order.
    failures: Vec<String>,
    /// What the failed tests said as they panicked.
    panics: Vec<String>,
    /// Lines that may still be kept of the one that is being read.
    room: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        self.panics.iter().try_for_each(|line| write!(f, "\n{line}"))?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

impl Tally {
    /// How many passed.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Reads a line of output or of errors.
    pub(crate) fn read(&mut self, line: &str) {
        self.keep(line);
        let failed_test = line.starts_with("test ") && line.ends_with(" ... FAILED");
        let failed_program = line.starts_with("error: ") && line.contains("test failed, to rerun pass");
        if failed_test || failed_program || line.trim_start().starts_with("process didn't exit successfully: ") {
            self.failures.push(line.trim().to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            let before = counts.split(what).next()?;
            before.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse::<u64>().ok()
        };
        self.passed += count(" passed").unwrap_or(0);
        self.failed += count(" failed").unwrap_or(0);
    }

    /// Keeps the words of a panic, which a test program prints after its last test.
    fn keep(&mut self, line: &str) {
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            self.room = MAX_LINES;
        } else if line == "stack backtrace:" || line.starts_with("note: run with `RUST_BACKTRACE") || line.starts_with("---- ") {
            self.room = 0;
        }
        if self.room > 0 && !line.is_empty() {
            self.room -= 1;
            self.panics.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_all_test_programs_are_added_up() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.60s");
        tally.read("test something ... ok");
        tally.read("test result: FAILED. 3 passed; 12 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.60s");
        assert_eq!((tally.passed, tally.failed), (20, 12));
    }

    #[test]
    fn the_words_of_a_panic_are_said_at_the_end_and_no_log_or_backtrace() {
        let mut tally = Tally::default();
        let printed = "---- a::b stdout ----\nINFO a log\n\nthread 'a::b' (7) panicked at a.rs:1:2:\nin vain waited\nstack backtrace:\n   0: main";
        printed.lines().for_each(|line| tally.read(line));
        tally.read("thread 'a::c' (8) panicked at a.rs:9:9:");
        (0..MAX_LINES).for_each(|number| tally.read(&format!("line {number}")));
        "\nfailures:\n    a::b\n\ntest result: FAILED. 1 passed; 2 failed; finished in 0.6s"
            .lines()
            .for_each(|line| tally.read(line));
        let said = tally.to_string();
        let beginning = "1 passed, 2 failed\nthread 'a::b' (7) panicked at a.rs:1:2:\nin vain waited\nthread 'a::c' (8) panicked at a.rs:9:9:\nline 0\n";
        assert!(said.starts_with(beginning), "{said}");
        assert_eq!(said.lines().count(), 1 + 2 + MAX_LINES, "{said}");
    }

    #[test]
    fn what_failed_is_said_at_the_end_and_a_program_that_died_too() {
        let mut tally = Tally::default();
        tally.read("test a::b ... FAILED");
        tally.read("test a::c ... ok");
        tally.read("error: test failed, to rerun pass `-p nex-node --test node`");
        tally.read("Caused by:");
        tally.read(
            "  process didn't exit successfully: `target/debug/deps/node-1` (signal: 11, SIGSEGV: invalid memory reference)",
        );
        let said = tally.to_string();
        let lines = said.lines().collect::<Vec<_>>();
        assert_eq!(lines.len(), 4, "{said}");
        assert!(lines[1].contains("a::b") && lines[2].contains("--test node") && lines[3].contains("signal: 11"), "{said}");
    }
}

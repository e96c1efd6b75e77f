//! Printing: answers go to standard output, notes and failures to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Error;
use serde::Serialize;

use crate::args::Used;
use crate::style::Style;
use crate::table::Grid;

/// The reader closed the output. This ends the command and is not a failure.
#[derive(Debug)]
pub(crate) struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the output")
    }
}

impl std::error::Error for Closed {}

/// Output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    no_color: bool,
    wide: bool,
}

impl Output {
    /// Creates an output for people or for programs.
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        Self { json, no_color, wide: false }
    }

    /// Does not fit tables to the terminal, if `wide`.
    pub(crate) fn wide(self, wide: bool) -> Self {
        Self { wide, ..self }
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Colours, if standard output is a terminal.
    pub(crate) fn style(&self) -> Style {
        Style::new(!self.no_color && !self.json && io::stdout().is_terminal())
    }

    /// Prints a line of the answer.
    pub(crate) fn line(&mut self, text: impl Display) -> anyhow::Result<()> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Prints a table that fits the terminal; whole, where there is none.
    pub(crate) fn table(&mut self, grid: &Grid) -> anyhow::Result<()> {
        let terminal = comfy_table::Table::new().width().filter(|_| !self.wide);
        self.line(grid.render(terminal.map(usize::from)))
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Prints a value as indented JSON.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.raw(&text)
    }

    /// Prints raw bytes; on a terminal followed by a line break.
    pub(crate) fn reply(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.raw(bytes)?;
        let ends_open = !bytes.is_empty() && !bytes.ends_with(b"\n");
        if ends_open && io::stdout().is_terminal() { self.raw(b"\n") } else { Ok(()) }
    }

    #[expect(clippy::unused_self, reason = "printing is the owner's alone")]
    fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
            other => other.map_err(|error| Error::from(error).context("cannot write the answer to standard output")),
        }
    }

    /// Prints a note for people; not with JSON.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.json {
            complain(format_args!("{text}"));
        }
    }

    /// Says why the command failed: `error:`, then `cause:` for each cause, then `next:`, then `used:`, what it was connected with; with
    /// JSON, one object of these.
    pub(crate) fn failure(&self, error: &Error, exit_code: u8, used: Option<&Used>) {
        if self.json {
            let mut told = failure_as_json(error, used);
            told.insert("exit_code".to_owned(), exit_code.into());
            told.extend(used.map(|used| ("used".to_owned(), used.as_json())));
            return complain(format_args!("{}", serde_json::Value::from(told)));
        }
        let style = Style::new(!self.no_color && io::stderr().is_terminal());
        complain(format_args!("{}", explain(error, used, style)));
        if let Some(used) = used {
            complain(format_args!("{} {used}", style.dim("used:")));
        }
    }
}

fn complain(text: std::fmt::Arguments<'_>) {
    // Standard error may be closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// An error and its causes without repetitions, and what there is to do.
struct Explained {
    said: Vec<String>,
    next: Vec<String>,
}

/// What failed, as the members `error`, `causes` and `next` of an object.
pub(crate) fn failure_as_json(error: &Error, used: Option<&Used>) -> serde_json::Map<String, serde_json::Value> {
    let Explained { said, next } = explained(error, used);
    let (what, causes) = said.split_first().map_or(("", &[][..]), |(what, causes)| (what.as_str(), causes));
    [("error", what.into()), ("causes", causes.into()), ("next", next.into())]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

fn explained(error: &Error, used: Option<&Used>) -> Explained {
    let (mut said, mut next) = (Vec::<String>::new(), Vec::new());
    for part in error.chain() {
        let text = part.to_string();
        let (what, advice) = text.split_once("; next: ").map_or((text.as_str(), None), |(what, advice)| (what, Some(advice)));
        if !said.concat().contains(what) {
            said.push(what.to_owned());
        }
        next.extend(advice.map(|advice| used.map_or_else(|| advice.to_owned(), |used| used.in_full(advice))));
    }
    Explained { said, next }
}

/// Formats an error chain; the advice comes last.
fn explain(error: &Error, used: Option<&Used>, style: Style) -> String {
    let Explained { said, next } = explained(error, used);
    let label = |at: usize| if at == 0 { style.error("error:") } else { style.dim("cause:") };
    let mut lines: Vec<String> = said.iter().enumerate().map(|(at, what)| format!("{} {what}", label(at))).collect();
    lines.extend(next.iter().map(|advice| format!("{} {advice}", style.good("next:"))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let inner = Error::msg("connection refused");
        let error = inner.context("no NATS server at nats://a: connection refused; next: start one").context("cannot list nodes");
        let text = explain(&error, None, Style::new(false));
        assert_eq!(text, "error: cannot list nodes\ncause: no NATS server at nats://a: connection refused\nnext: start one");
    }

    #[test]
    fn one_sentence_is_one_line() {
        assert_eq!(explain(&Error::msg("no"), None, Style::new(false)), "error: no");
    }
}

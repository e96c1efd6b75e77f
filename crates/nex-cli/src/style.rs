//! Colours, where there is a terminal to show them, and texts of strangers made harmless to it.

use std::borrow::Cow;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    on: bool,
}

/// Colours that tell workloads apart, readable on dark and light.
const PALETTE: [&str; 6] = ["32", "33", "34", "35", "36", "94"];

impl Style {
    /// Colours if `on`.
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// For what went wrong.
    pub(crate) fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// For what is odd.
    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// For what is well, and advice.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For what matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A name in the colour it always has.
    pub(crate) fn name(self, text: &str) -> String {
        let sum: usize = text.bytes().map(usize::from).sum();
        self.paint(PALETTE.get(sum % PALETTE.len()).copied().unwrap_or("0"), text)
    }
}

/// A text that came from outside, with control characters made visible so that it cannot steer a terminal.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\t';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_appear_only_when_on_and_a_name_keeps_its_own() {
        assert_eq!(Style::new(false).error("x"), "x");
        assert_eq!(Style::new(true).error("x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Style::new(true).name("echo"), Style::new(true).name("echo"));
    }

    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\tb"), "a\tb");
        assert_eq!(harmless("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}

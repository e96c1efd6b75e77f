//! Colours, and escaping of untrusted text for terminals.

use std::borrow::Cow;

/// Colours, if enabled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    on: bool,
}

/// Colours of workload names, readable on dark and light backgrounds.
const PALETTE: [&str; 6] = ["32", "33", "34", "35", "36", "94"];

impl Style {
    /// Enables colours if `on`.
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// An error.
    pub(crate) fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// A warning.
    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Success, and advice.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Secondary text.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A name, always in the same colour.
    pub(crate) fn name(self, text: &str) -> String {
        let sum: usize = text.bytes().map(usize::from).sum();
        self.paint(PALETTE.get(sum % PALETTE.len()).copied().unwrap_or("0"), text)
    }
}

/// Replaces control characters in untrusted text, so that it cannot control the terminal.
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
    fn colours_appear_only_if_enabled_and_a_name_keeps_its_colour() {
        assert_eq!(Style::new(false).error("x"), "x");
        assert_eq!(Style::new(true).error("x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Style::new(true).name("echo"), Style::new(true).name("echo"));
    }

    #[test]
    fn untrusted_text_cannot_control_the_terminal() {
        assert_eq!(harmless("a\tb"), "a\tb");
        assert_eq!(harmless("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}

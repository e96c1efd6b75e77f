//! Collects what ICU4X writes as parts with the names that ECMA-402 has for them.

use std::fmt;

use writeable::{Part, PartsWrite};

/// A kind and a text.
pub(crate) type Piece = (&'static str, String);

/// Pieces of a formatted value; `kind` names the innermost of the parts that are open.
pub(crate) struct Parts {
    open: Vec<Part>,
    kind: fn(&[Part]) -> &'static str,
    /// Whether the next text begins a piece, even if it is of the last one's kind.
    begins: bool,
    pub(crate) pieces: Vec<Piece>,
}

impl Parts {
    pub(crate) fn new(kind: fn(&[Part]) -> &'static str) -> Self {
        Self { open: Vec::new(), kind, begins: true, pieces: Vec::new() }
    }
}

impl fmt::Write for Parts {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.is_empty() {
            return Ok(());
        }
        let kind = (self.kind)(&self.open);
        match self.pieces.last_mut() {
            Some((last, so_far)) if *last == kind && (kind == LITERAL || !self.begins) => so_far.push_str(text),
            _ => self.pieces.push((kind, text.to_owned())),
        }
        self.begins = false;
        Ok(())
    }
}

impl PartsWrite for Parts {
    type SubPartsWrite = Self;

    fn with_part(&mut self, part: Part, mut write: impl FnMut(&mut Self) -> fmt::Result) -> fmt::Result {
        self.open.push(part);
        self.begins = true;
        let written = write(self);
        self.open.pop();
        self.begins = true;
        written
    }
}

/// The kind of what is between the others.
pub(crate) const LITERAL: &str = "literal";

/// The kinds that are named alike here and there.
pub(crate) fn own_name(open: &[Part]) -> &'static str {
    open.last().map_or(LITERAL, |part| part.value)
}

/// Pieces as a JSON array of kinds and texts in turn.
pub(crate) fn to_json(pieces: &[Piece]) -> Option<String> {
    let flat: Vec<&str> = pieces.iter().flat_map(|(kind, text)| [*kind, text.as_str()]).collect();
    serde_json::to_string(&flat).ok()
}

//! What this host lacks for a network of guests.

use crate::config::NetworkKind;

/// Something the host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub what: String,
    /// What to type or install.
    pub advice: String,
    /// Whether the network cannot be opened without it.
    pub fatal: bool,
}

/// Says what this host lacks for networks of this kind; empty is good news. Changes nothing.
#[must_use]
pub fn check(_kind: &NetworkKind) -> Vec<Lack> {
    Vec::new()
}

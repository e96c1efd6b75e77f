//! Entry point for `fuzz/`: the superblock parser.

use crate::format::{Options, Super};

/// Parses a superblock.
#[must_use]
pub fn superblock(bytes: &[u8]) -> Option<Options> {
    Super::parse(bytes).map(|found| found.options)
}

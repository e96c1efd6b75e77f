//! A door for `fuzz/` to the reader of superblocks.

use crate::format::{Options, Super};

/// What a superblock says of its image.
#[must_use]
pub fn superblock(bytes: &[u8]) -> Option<Options> {
    Super::parse(bytes).map(|found| found.options)
}

//! The unit of an image.

/// Size of a block, in bytes; every image is a multiple of it.
pub const BLOCK: u64 = 4096;

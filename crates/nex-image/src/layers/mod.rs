//! Tarballs and layers of images, and how they become one tree.
//!
//! | room | what is in it |
//! |---|---|
//! | `compression` | gzip and zstd, told apart by their first bytes |
//! | `tarball` | an archive as a list of entries |
//! | `layer` | entries into the tree, whiteouts and symbolic links among them |
//! | `builder`, `spool` | what is built, where contents wait, how much there may be |

mod builder;
mod compression;
pub(crate) mod layer;
mod spool;
mod tarball;

pub(crate) use builder::{Devices, ImageBuilder};
pub(crate) use compression::decompress;
pub use layer::LayerError;
pub(crate) use spool::{Budget, Limits, Spool};
pub(crate) use tarball::read as read_tar;

//! Writes read-only EROFS images: root file systems and drives of microVMs. Knows nothing of nex.
//!
//! No root is needed, because owners and devices exist only in the image, and nothing is compressed, so that guests map
//! pages as they are. The same tree gives the same bytes. Extended attributes are not written.
//!
//! | room | what is in it |
//! |---|---|
//! | [`tree`] | what shall be in an image |
//! | `layout` | where each inode and block goes |
//! | `directory`, `format` | how they look on disk |
//! | [`image`], [`mod@drive`] | writing: any tree, and the drive with one artifact |

mod directory;
pub mod drive;
mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod image;
mod layout;
pub mod tree;

pub use drive::drive;
pub use image::{Options, WriteError, Written, identify};
pub use tree::{Kind, Meta, Source, Tree, TreeError};

/// Size of a block, in bytes; every image is a multiple of it.
pub const BLOCK: u64 = 4096;

//! Writes read-only EROFS images: root file systems and drives of microVMs. Knows nothing of nex.
//!
//! No root is needed, because owners and devices exist only in the image, and nothing is compressed, so that guests map
//! pages as they are. The same tree gives the same bytes. Extended attributes are not written.
//!
//! | room | what is in it |
//! |---|---|
//! | [`tree`], `source` | the content of an image |
//! | `layout` | placement of inodes and blocks |
//! | `directory`, `format`, `block` | the on-disk format |
//! | [`image`], [`mod@drive`] | writing an image; the drive with one artifact |

mod block;
mod directory;
pub mod drive;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod image;
mod layout;
mod source;
pub mod tree;

pub use block::BLOCK;
pub use drive::drive;
pub use error::WriteError;
pub use format::Options;
pub use image::{Written, identify};
pub use source::Source;
pub use tree::{Kind, Meta, Tree, TreeError};

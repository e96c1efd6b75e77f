//! Why an image cannot be written.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// More blocks than the format can count.
    #[error("the tree is larger than an image can be, which is 16 TiB")]
    TooLarge {
        /// Where counting ended.
        source: std::num::TryFromIntError,
    },
    /// A file that is to be in the image.
    #[error("cannot read {path}, which is to be in the image")]
    Source {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that became shorter.
    #[error(
        "a file became shorter than {expected} bytes while it was copied into the image; next: try again when nobody writes it"
    )]
    Shrunk {
        /// Its length when the image was laid out.
        expected: u64,
    },
    /// The image itself.
    #[error("cannot write the image; next: see that there is room for it")]
    Image(#[source] io::Error),
}

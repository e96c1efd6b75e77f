//! Why an image cannot be written.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image needs more blocks than the format can address.
    #[error("the tree is larger than an image can be, which is 16 TiB")]
    TooLarge {
        /// The block number that does not fit.
        source: std::num::TryFromIntError,
    },
    /// A source file cannot be read.
    #[error("cannot read {path}, which belongs in the image")]
    Source {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A source file shrank while it was copied.
    #[error("a file shrank below {expected} bytes while it was copied into the image; next: try again when nothing writes to it")]
    Shrunk {
        /// Its length when the image was laid out.
        expected: u64,
    },
    /// The image cannot be written.
    #[error("cannot write the image; next: check that there is room for it")]
    Image(#[source] io::Error),
}

//! Why a base cannot be used.

use std::path::PathBuf;

use crate::file::FileError;
use crate::layers::LayerError;
use crate::oci::{OciError, ReferenceError};

/// Why a base could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in a tarball or a layer.
    #[error("{from} cannot be used")]
    Layer {
        /// The tarball or layer.
        from: String,
        /// Why.
        source: LayerError,
    },
    /// An OCI image.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A text that names no base.
    #[error(
        "'{text}' is neither a file nor a directory, and no reference of an image; next: name a directory, a tarball, oci:DIR[:TAG], oci-archive:FILE[:TAG] or an image like alpine:3.22"
    )]
    Unknown {
        /// What was said.
        text: String,
        /// Why it is no reference.
        source: ReferenceError,
    },
    /// A path at which nothing is.
    #[error("there is nothing at {0}; next: name a base that is there")]
    NotThere(PathBuf),
}

//! Errors of loading a base.

use std::path::PathBuf;

use crate::file::FileError;
use crate::layers::LayerError;
use crate::oci::{OciError, ReferenceError};

/// Why a base cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file or directory cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tarball or directory has invalid content.
    #[error("{from} cannot be used")]
    Layer {
        /// The tarball or directory.
        from: String,
        /// Why.
        source: LayerError,
    },
    /// The OCI image cannot be loaded.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The text names no base.
    #[error(
        "'{text}' is neither a file nor a directory, and no image reference; next: name a directory, a tarball, oci:DIR[:TAG], oci-archive:FILE[:TAG] or an image like alpine:3.22"
    )]
    Unknown {
        /// The text.
        text: String,
        /// Why it is not a reference.
        source: ReferenceError,
    },
    /// The path does not exist.
    #[error("there is nothing at {0}; next: name a base that exists")]
    NotThere(PathBuf),
}

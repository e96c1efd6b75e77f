//! Why an image or a registry gives nothing to use.

use std::io;

use ureq::http::StatusCode;

use super::reference::Digest;
use crate::file::FileError;
use crate::layers::LayerError;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of the layout or archive.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A blob that is not there, cut off, or not what its digest says.
    #[error("blob {digest} of the image cannot be used")]
    Blob {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// An index or manifest that is none.
    #[error("{what} of the image is broken")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An image for other machines.
    #[error("the image is not for {wanted}, only for {offered}; next: name an image for {wanted}")]
    Platform {
        /// This machine.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// Something no image has.
    #[error("the image is refused: {0}")]
    Unsupported(&'static str),
    /// Which of several.
    #[error("{place} has {count} images{tags}; next: name one of them by its tag, as in oci:DIR:TAG")]
    Ambiguous {
        /// The layout.
        place: String,
        /// How many.
        count: usize,
        /// Their tags.
        tags: String,
    },
    /// What is in a layer.
    #[error("layer {digest} cannot be used")]
    Layer {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
}

/// Why a registry gave no image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Talking to it.
    #[error(
        "cannot talk to the registry: {url}; next: check the network and the name, or use --plain-http for a registry without TLS"
    )]
    Http {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It says no.
    #[error("the registry answered {status} to {url}{}", advice(*.status))]
    Refused {
        /// What was asked.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// Its way of asking who one is.
    #[error("the registry asks for a login in a way that is not known: {0}")]
    Challenge(String),
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; next: check the name of the image, or give --registry-user and NEX_REGISTRY_PASSWORD"
        }
        StatusCode::NOT_FOUND => "; next: check the name and tag of the image",
        StatusCode::TOO_MANY_REQUESTS => "; next: wait, log in with --registry-user, or use another registry",
        _ => "",
    }
}

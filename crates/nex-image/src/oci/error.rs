//! Errors of images and registries.

use std::io;

use ureq::http::StatusCode;

use super::reference::Digest;
use crate::file::FileError;
use crate::layers::LayerError;

/// Why an image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of the layout or archive cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry does not provide it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A blob is missing, truncated or does not match its digest.
    #[error("blob {digest} of the image cannot be used")]
    Blob {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// An index or manifest cannot be parsed.
    #[error("{what} of the image is invalid")]
    Document {
        /// Which document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The image has no variant for this machine.
    #[error("the image is not for {wanted}, only for {offered}; next: name an image for {wanted}")]
    Platform {
        /// Platform of this machine.
        wanted: String,
        /// Platforms of the image.
        offered: String,
    },
    /// The image has a shape that is not supported.
    #[error("the image is refused: {0}")]
    Unsupported(&'static str),
    /// The layout has several images, or none with the tag.
    #[error("{place} has {count} images{tags}; next: name one of them by its tag, as in oci:DIR:TAG")]
    Ambiguous {
        /// The layout.
        place: String,
        /// Number of candidates.
        count: usize,
        /// Their tags.
        tags: String,
    },
    /// The archive of the image cannot be written.
    #[error("the image cannot be packed; next: check that there is room for it")]
    Pack {
        /// Why.
        source: io::Error,
    },
    /// The content of a layer is invalid.
    #[error("layer {digest} cannot be used")]
    Layer {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
}

/// Why a registry does not provide an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The request failed.
    #[error(
        "cannot talk to the registry: {url}; next: check the network and the name, or use --plain-http for a registry without TLS"
    )]
    Http {
        /// The URL requested.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The registry refused the request.
    #[error("the registry answered {status} to {url}{}", advice(*.status))]
    Refused {
        /// The URL requested.
        url: String,
        /// Status of the response.
        status: StatusCode,
    },
    /// The authentication scheme is not supported.
    #[error("the registry asks for an authentication that is not supported: {0}")]
    Challenge(String),
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; next: check the name of the image, or log in by 'docker login', or --registry-user and NEX_REGISTRY_PASSWORD"
        }
        StatusCode::NOT_FOUND => "; next: check the name and tag of the image",
        StatusCode::TOO_MANY_REQUESTS => "; next: wait, log in with --registry-user, or use another registry",
        _ => "",
    }
}

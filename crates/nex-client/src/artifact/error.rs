//! Why an artifact could not be uploaded, found or removed.

use std::path::PathBuf;

use nex_protocol::deploy::Location;

/// An artifact could not be uploaded or found.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file could not be read.
    #[error("cannot read {path}; next: check the path and its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server or the account has no JetStream.
    #[error(
        "JetStream is off, so there is no object store to keep artifacts in; next: start nats-server with `-js`, or enable \
             JetStream for this account (and check the JetStream domain, if you use one)"
    )]
    NoJetStream(#[source] async_nats::Error),
    /// The bucket is missing where an artifact should lie.
    #[error("there is no object store bucket {0}; next: create it with `nats object add`, or upload with `nex devrun`")]
    NoBucket(String),
    /// The object is missing.
    #[error(
        "there is no artifact {0}; next: upload it with `nats object put`, or see what is there with `nex artifact ls --all`"
    )]
    NoObject(Location),
    /// The object records no SHA-256 digest.
    #[error("{0} has no SHA-256 digest, so it cannot be signed for; next: upload it again")]
    NoDigest(Location),
    /// The bucket's bound leaves no room.
    #[error(
        "bucket {bucket} is full: {used} of {limit} bytes are used and {needed} are needed; next: remove what nothing uses with \
             `nex artifact gc`, or give the bucket a larger bound with --bucketmaxbytes"
    )]
    Full {
        /// The bucket.
        bucket: String,
        /// Bytes used.
        used: u64,
        /// Its bound.
        limit: i64,
        /// Bytes of the file.
        needed: u64,
    },
    /// The bucket could not be given a larger bound.
    #[error("bucket {bucket} cannot be given a bound of {bytes} bytes; next: ask who owns the JetStream account for room")]
    Bound {
        /// The bucket.
        bucket: String,
        /// The bound.
        bytes: i64,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// The file changed while it was read.
    #[error("{0} changed while it was uploaded; next: run it again when it is complete")]
    Changed(PathBuf),
    /// The object store did not do it.
    #[error("the object store failed to {what} {location}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// With which object.
        location: Location,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
}

pub(super) fn store_error(what: &'static str, location: &Location, error: impl Into<async_nats::Error>) -> ArtifactError {
    ArtifactError::Store { what, location: location.clone(), source: error.into() }
}

//! Why an artifact cannot be had.

use std::io;

use async_nats::jetstream::context::ObjectStoreError;
use async_nats::jetstream::object_store::{GetError, InfoError};
use nex_bus::denials::Denial;
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;

use crate::state_dir::StateError;

/// An artifact that cannot be had, or is not what its object store promised.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Something failed on the way.
    #[error("Failed to cache workload bytes: {doing} {location}: {defect}")]
    At {
        /// What was being done.
        doing: &'static str,
        /// With what.
        location: Location,
        /// What failed.
        defect: Defect,
    },
    /// The node may not read the bucket.
    #[error("Failed to cache workload bytes: on the node's NATS: {0}")]
    Denied(Denial),
    /// A workload of an earlier process whose request names no location.
    #[error("Failed to cache workload bytes: nobody knows where it came from")]
    NoLocation,
    /// The object was replaced.
    #[error("Failed to cache workload bytes: {location} is not what ran here (SHA-256 {digest}) any more")]
    Replaced {
        /// Where it was.
        location: Location,
        /// What ran.
        digest: Digest,
    },
}

impl FetchError {
    /// That something failed with an artifact.
    pub(super) fn at(doing: &'static str, location: &Location, defect: impl Into<Defect>) -> Self {
        Self::At { doing, location: location.clone(), defect: defect.into() }
    }
}

/// What failed with an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// The object store does not answer.
    #[error("no answer in time; is JetStream enabled for this node's account?")]
    Unanswered,
    /// There is no such bucket, or no JetStream.
    #[error("{0}; is JetStream enabled for this node's account?")]
    Bucket(#[from] ObjectStoreError),
    /// There is no such object.
    #[error(transparent)]
    Object(#[from] InfoError),
    /// There was one.
    #[error("it was deleted")]
    Deleted,
    /// It cannot be read.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Reading or writing it failed.
    #[error("{0}; next: see the disk under the node's state directory, and how many files the node may have open")]
    Io(#[from] io::Error),
    /// There is no directory to put it into.
    #[error(transparent)]
    Directory(#[from] StateError),
    /// It is larger than promised, bytes.
    #[error("it is larger than the {0} bytes the store promised")]
    TooLarge(u64),
    /// It is not what was promised.
    #[error("its bytes have the digest {0}, not the one the store promised")]
    Digest(Digest),
    /// There was no time left.
    #[error("it took longer than the deploy may take")]
    Late,
}

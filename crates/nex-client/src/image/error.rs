//! Why an image could not be kept, found, read or removed.

use nex_protocol::digest::Digest;
use nex_protocol::image_store::{ImageName, InvalidRecord};

use crate::artifact::ArtifactError;

/// An image of the namespace could not be kept, found, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bucket cannot be opened or made.
    #[error(transparent)]
    Bucket(#[from] ArtifactError),
    /// There is no such image.
    #[error(
        "there is no image {name} in namespace {namespace}; next: see those there are with `nex image ls`, or push it with `nex image push`"
    )]
    Missing {
        /// Its name.
        name: ImageName,
        /// Where it was looked for.
        namespace: String,
    },
    /// The tag means another image than was demanded.
    #[error("{name} is sha256:{now} now; next: name that one, or push the other one again")]
    Moved {
        /// What was demanded.
        name: Box<ImageName>,
        /// What it is.
        now: Digest,
    },
    /// What a tag means cannot be read.
    #[error("the tag {name} cannot be read; next: push it again, or remove it with `nex image rm {name}`")]
    Record {
        /// The tag.
        name: ImageName,
        /// Why.
        source: InvalidRecord,
    },
    /// The image to be pushed is beyond a bound.
    #[error("the image {name} cannot be kept")]
    Bounds {
        /// The image.
        name: ImageName,
        /// Why.
        source: InvalidRecord,
    },
    /// A blob of an image is not there, or not whole.
    #[error("blob sha256:{digest} {what}; next: push the image again with `nex image push --again`")]
    Blob {
        /// The blob.
        digest: Digest,
        /// What is the matter with it.
        what: &'static str,
    },
    /// Somebody else has pushed the same tag meanwhile.
    #[error("{name} was pushed by somebody else meanwhile: it is sha256:{now}, and stays that; next: push again to replace it")]
    Overtaken {
        /// The tag.
        name: Box<ImageName>,
        /// What it is now.
        now: Digest,
    },
    /// Others change it all the time.
    #[error("{0} is changed by others all the time; next: try again")]
    Busy(String),
    /// The bucket's bound leaves no room.
    #[error(
        "bucket {bucket} is full: {used} of {limit} bytes are used and {needed} are needed; next: remove images with `nex image rm` and \
         `nex image gc`, or give it a larger bound with --max-bytes"
    )]
    Full {
        /// The bucket.
        bucket: String,
        /// Bytes used.
        used: u64,
        /// Its bound.
        limit: i64,
        /// Bytes of what is missing.
        needed: u64,
    },
    /// The bucket did not do it.
    #[error("cannot {what} in the bucket {bucket}; next: check that this user may use it")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Which bucket.
        bucket: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
}

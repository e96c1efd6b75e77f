//! The file of a workload, in an object store: uploaded unless it is there already, or found where it lies.
//!
//! | file | what is in it |
//! |---|---|
//! | [`key`] | its name there, and whose it is |
//! | `file` | the local file |
//! | `parts` | the file on its way, in parts that are gone on from |
//! | `bucket` | the bucket: made, and given more room |
//! | [`stored`], `unfinished` | what lies there, what of it nothing uses, and parts of uploads that never ended |

mod bucket;
mod error;
mod file;
pub mod key;
mod parts;
pub mod stored;
mod unfinished;

use async_nats::jetstream::object_store::InfoErrorKind;
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;

pub use self::bucket::NewBucket;
use self::bucket::stored_digest;
pub use self::error::ArtifactError;
use self::error::store_error;
pub use self::file::LocalFile;
pub(crate) use self::parts::{Lineage, Parts, Piece};
pub use self::unfinished::Unfinished;
use crate::Client;

/// The bucket `nex devrun` uploads to.
pub const DEFAULT_BUCKET: &str = "NEXCLIFILES";
/// Bound of that bucket when it is created, in bytes.
pub const DEFAULT_BUCKET_BYTES: i64 = 104_857_600;

/// An artifact that lies in an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where.
    pub location: Location,
    /// JetStream domain of the bucket.
    pub jetstream_domain: Option<String>,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
}

/// What to upload, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Bucket and key; the bucket is created if it is missing.
    pub location: Location,
    /// JetStream domain of the bucket.
    pub jetstream_domain: Option<String>,
    /// What the bucket is created with.
    pub new_bucket: NewBucket,
    /// The file.
    pub file: LocalFile,
}

/// What an upload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The artifact.
    pub artifact: Artifact,
    /// Whether the same bytes lay there already and nothing was sent.
    pub was_there: bool,
    /// How many bytes an upload that was interrupted had sent already.
    pub resumed_bytes: u64,
}

impl Default for NewBucket {
    fn default() -> Self {
        Self { bytes: DEFAULT_BUCKET_BYTES, replicas: 1 }
    }
}

impl Client {
    /// Uploads a file, unless the same bytes are there already; what an upload that was interrupted has sent is gone on from. `progress` hears
    /// the bytes that are there and the total.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn upload(&self, upload: &Upload, progress: impl FnMut(u64, u64) + Send) -> Result<Uploaded, ArtifactError> {
        let Upload { location, jetstream_domain, new_bucket, file } = upload;
        let artifact = Artifact {
            location: location.clone(),
            jetstream_domain: jetstream_domain.clone(),
            digest: file.digest,
            bytes: file.bytes,
        };
        let bucket = match self.open_bucket(location, jetstream_domain.as_deref()).await? {
            Some(bucket) => bucket,
            None => {
                Box::pin(self.create_bucket(location, (*new_bucket, "Artifacts uploaded by nex"), jetstream_domain.as_deref()))
                    .await?
            }
        };
        if stored_digest(&bucket.store, location).await? == Some((file.digest, file.bytes)) {
            return Ok(Uploaded { artifact, was_there: true, resumed_bytes: 0 });
        }
        let context = self.jetstream(jetstream_domain.as_deref());
        // Boxed: the store's own futures are large.
        let (parts, resumed_bytes) =
            Box::pin(Parts::find(context, &artifact, Piece { path: &file.path, from: 0, is_rest: true }, Lineage::After(0)))
                .await?;
        let (room, needed) = (bucket.room(), file.bytes - resumed_bytes);
        if !room.is_enough(needed) {
            let bucket = location.bucket.clone();
            return Err(ArtifactError::Full { bucket, used: room.used, limit: room.limit, needed });
        }
        let old = bucket.store.info(&location.key).await.ok();
        Box::pin(parts.send(progress)).await?;
        parts.publish_object().await?;
        if let Some(old) = old {
            parts.remove_old(&old.nuid).await;
        }
        Ok(Uploaded { artifact, was_there: false, resumed_bytes })
    }

    /// Finds an artifact and its digest where it lies.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn locate(&self, location: &Location, jetstream_domain: Option<&str>) -> Result<Artifact, ArtifactError> {
        let bucket = self.open_bucket(location, jetstream_domain).await?;
        let bucket = bucket.ok_or_else(|| ArtifactError::NoBucket(location.bucket.clone()))?;
        let info = bucket.store.info(&location.key).await.map_err(|error| match error.kind() {
            InfoErrorKind::NotFound => ArtifactError::NoObject(location.clone()),
            InfoErrorKind::InvalidName | InfoErrorKind::Other | InfoErrorKind::TimedOut => store_error("find", location, error),
        })?;
        if info.deleted {
            return Err(ArtifactError::NoObject(location.clone()));
        }
        let digest = info.digest.as_deref().and_then(Digest::from_object_store);
        let digest = digest.ok_or_else(|| ArtifactError::NoDigest(location.clone()))?;
        let jetstream_domain = jetstream_domain.map(str::to_owned);
        Ok(Artifact { location: location.clone(), jetstream_domain, digest, bytes: info.size as u64 })
    }
}

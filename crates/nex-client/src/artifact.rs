//! The file of a workload, in an object store: uploaded unless it is there already, or found where it lies.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::object_store::{Config, InfoErrorKind, ObjectMetadata, ObjectStore};
use async_nats::jetstream::{self, ErrorCode};
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;
use tokio::io::{AsyncRead, ReadBuf};

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
    /// Bound of the bucket if it has to be created, in bytes.
    pub bucket_bytes: i64,
    /// The file.
    pub file: PathBuf,
}

/// What an upload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The artifact.
    pub artifact: Artifact,
    /// Whether the same bytes lay there already and nothing was sent.
    pub was_there: bool,
}

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
    #[error("there is no artifact {0}; next: upload it with `nats object put`, or see what is there with `nats object ls`")]
    NoObject(Location),
    /// The object records no SHA-256 digest.
    #[error("{0} has no SHA-256 digest, so it cannot be signed for; next: upload it again")]
    NoDigest(Location),
    /// The bucket's bound leaves no room.
    #[error(
        "bucket {bucket} is full: {used} of {limit} bytes are used and {needed} are needed; next: delete old artifacts with \
             `nats object del {bucket}`, or delete the bucket and give a larger bound"
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

impl Client {
    /// Uploads a file, unless the same bytes are there already. `progress` hears the bytes sent so far and the total.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn upload(
        &self,
        upload: &Upload,
        progress: impl FnMut(u64, u64) + Send + Unpin,
    ) -> Result<Uploaded, ArtifactError> {
        let (digest, bytes) = digest_of(&upload.file).await?;
        let (location, jetstream_domain) = (upload.location.clone(), upload.jetstream_domain.clone());
        let artifact = Artifact { location, jetstream_domain, digest, bytes };
        let bucket = match self.open_bucket(&artifact.location, artifact.jetstream_domain.as_deref()).await? {
            Some(bucket) => bucket,
            None => Box::pin(self.create_bucket(upload)).await?,
        };
        if stored_digest(&bucket.store, &artifact.location).await? == Some((digest, bytes)) {
            return Ok(Uploaded { artifact, was_there: true });
        }
        if bucket.limit > 0 && bucket.used.saturating_add(bytes) > u64::try_from(bucket.limit).unwrap_or(u64::MAX) {
            let (used, limit) = (bucket.used, bucket.limit);
            return Err(ArtifactError::Full { bucket: artifact.location.bucket, used, limit, needed: bytes });
        }
        // Boxed: the store's own futures are large.
        Box::pin(put(&bucket.store, &artifact, &upload.file, progress)).await?;
        Ok(Uploaded { artifact, was_there: false })
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

    fn jetstream(&self, domain: Option<&str>) -> jetstream::Context {
        match domain {
            Some(domain) if !domain.is_empty() => jetstream::with_domain(self.nats.clone(), domain),
            _ => jetstream::new(self.nats.clone()),
        }
    }

    async fn open_bucket(&self, location: &Location, domain: Option<&str>) -> Result<Option<Bucket>, ArtifactError> {
        let jetstream = self.jetstream(domain);
        let stream = match jetstream.get_stream(format!("OBJ_{}", location.bucket)).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::STREAM_NOT_FOUND => return Ok(None),
                GetStreamErrorKind::JetStream(reason) if !is_off(&reason) => return Err(store_error("open", location, error)),
                GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                    return Err(store_error("open", location, error));
                }
                GetStreamErrorKind::JetStream(_) | GetStreamErrorKind::Request => {
                    return Err(ArtifactError::NoJetStream(error.into()));
                }
            },
        };
        let (used, limit) = (stream.cached_info().state.bytes, stream.cached_info().config.max_bytes);
        let store = jetstream.get_object_store(&location.bucket).await.map_err(|e| store_error("open", location, e))?;
        Ok(Some(Bucket { store, used, limit }))
    }

    async fn create_bucket(&self, upload: &Upload) -> Result<Bucket, ArtifactError> {
        let config = Config {
            bucket: upload.location.bucket.clone(),
            description: Some("Artifacts uploaded by nex".into()),
            max_bytes: upload.bucket_bytes,
            num_replicas: 1,
            ..Config::default()
        };
        let jetstream = self.jetstream(upload.jetstream_domain.as_deref());
        let store =
            jetstream.create_object_store(config).await.map_err(|e| store_error("create the bucket of", &upload.location, e))?;
        Ok(Bucket { store, used: 0, limit: upload.bucket_bytes })
    }
}

struct Bucket {
    store: ObjectStore,
    used: u64,
    limit: i64,
}

fn is_off(reason: &jetstream::Error) -> bool {
    matches!(reason.error_code(), ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT)
}

fn store_error(what: &'static str, location: &Location, error: impl Into<async_nats::Error>) -> ArtifactError {
    ArtifactError::Store { what, location: location.clone(), source: error.into() }
}

async fn digest_of(path: &Path) -> Result<(Digest, u64), ArtifactError> {
    let (file, failed) = (path.to_owned(), |source| ArtifactError::File { path: path.to_owned(), source });
    let digest = tokio::task::spawn_blocking(move || Digest::read(std::fs::File::open(file)?)).await;
    digest.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
}

async fn stored_digest(store: &ObjectStore, location: &Location) -> Result<Option<(Digest, u64)>, ArtifactError> {
    match store.info(&location.key).await {
        Ok(info) if info.deleted => Ok(None),
        Ok(info) => Ok(info.digest.as_deref().and_then(Digest::from_object_store).map(|digest| (digest, info.size as u64))),
        Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(store_error("look up", location, error)),
    }
}

async fn put(
    store: &ObjectStore,
    artifact: &Artifact,
    path: &Path,
    progress: impl FnMut(u64, u64) + Send + Unpin,
) -> Result<(), ArtifactError> {
    let file = tokio::fs::File::open(path).await.map_err(|source| ArtifactError::File { path: path.to_owned(), source })?;
    let mut counted = Counted { inner: file, sent: 0, total: artifact.bytes, progress };
    let metadata = ObjectMetadata { name: artifact.location.key.clone(), ..ObjectMetadata::default() };
    let info = store.put(metadata, &mut counted).await.map_err(|error| store_error("upload", &artifact.location, error))?;
    if info.digest.as_deref().and_then(Digest::from_object_store) == Some(artifact.digest) {
        return Ok(());
    }
    Err(ArtifactError::Changed(path.to_owned()))
}

/// A reader that tells how far it is.
struct Counted<R, F> {
    inner: R,
    sent: u64,
    total: u64,
    progress: F,
}

impl<R: AsyncRead + Unpin, F: FnMut(u64, u64) + Unpin> AsyncRead for Counted<R, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        if count > 0 {
            self.sent = self.sent.saturating_add(count as u64);
            let (sent, total) = (self.sent, self.total);
            (self.progress)(sent, total);
        }
        polled
    }
}

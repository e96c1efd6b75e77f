//! The object store bucket of artifacts: opened, made, given more room.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::object_store::{Config, InfoErrorKind, ObjectStore};
use async_nats::jetstream::{self, ErrorCode, stream};
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;

use super::error::{ArtifactError, store_error};
use crate::Client;

/// What a bucket is made with where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBucket {
    /// Its bound, bytes.
    pub bytes: i64,
    /// On how many servers its content is kept.
    pub replicas: usize,
}

/// A bucket that is there.
pub(crate) struct Bucket {
    pub(super) store: ObjectStore,
    /// What it is kept in.
    stream: stream::Config,
    used: u64,
}

/// Whether the room in a bucket is enough, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) used: u64,
    /// None if that is not positive.
    pub(crate) limit: i64,
}

impl Room {
    pub(crate) fn is_enough(self, bytes: u64) -> bool {
        self.limit <= 0 || self.used.saturating_add(bytes) <= u64::try_from(self.limit).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    pub(crate) fn room(&self) -> Room {
        Room { used: self.used, limit: self.stream.max_bytes }
    }
}

impl Client {
    pub(crate) async fn open_bucket(&self, location: &Location, domain: Option<&str>) -> Result<Option<Bucket>, ArtifactError> {
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
        let (used, config) = (stream.cached_info().state.bytes, stream.cached_info().config.clone());
        let store = jetstream.get_object_store(&location.bucket).await.map_err(|e| store_error("open", location, e))?;
        Ok(Some(Bucket { store, stream: config, used }))
    }

    pub(crate) async fn create_bucket(
        &self,
        location: &Location,
        (new, description): (NewBucket, &str),
        domain: Option<&str>,
    ) -> Result<Bucket, ArtifactError> {
        let config = Config {
            bucket: location.bucket.clone(),
            description: Some(description.to_owned()),
            max_bytes: new.bytes,
            num_replicas: new.replicas,
            ..Config::default()
        };
        let store = self.jetstream(domain).create_object_store(config).await;
        let store = store.map_err(|error| store_error("create the bucket of", location, error))?;
        Ok(Bucket { store, stream: stream::Config { max_bytes: new.bytes, ..stream::Config::default() }, used: 0 })
    }

    /// Lets a bucket hold more, or less, than it was made for.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn bound_bucket(&self, bucket: &str, bytes: i64, domain: Option<&str>) -> Result<(), ArtifactError> {
        let refused = |source: async_nats::Error| ArtifactError::Bound { bucket: bucket.to_owned(), bytes, source };
        let jetstream = self.jetstream(domain);
        let stream = jetstream.get_stream(format!("OBJ_{bucket}")).await.map_err(|error| refused(error.into()))?;
        let config = stream::Config { max_bytes: bytes, ..stream.cached_info().config.clone() };
        jetstream.update_stream(config).await.map_err(|error| refused(error.into()))?;
        Ok(())
    }
}

fn is_off(reason: &jetstream::Error) -> bool {
    matches!(reason.error_code(), ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT)
}

pub(super) async fn stored_digest(store: &ObjectStore, location: &Location) -> Result<Option<(Digest, u64)>, ArtifactError> {
    match store.info(&location.key).await {
        Ok(info) if info.deleted => Ok(None),
        Ok(info) => Ok(info.digest.as_deref().and_then(Digest::from_object_store).map(|digest| (digest, info.size as u64))),
        Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(store_error("look up", location, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_bound_leaves() {
        let room = Room { used: 90, limit: 100 };
        assert!(room.is_enough(10) && !room.is_enough(11) && Room { limit: -1, ..room }.is_enough(u64::MAX));
    }
}

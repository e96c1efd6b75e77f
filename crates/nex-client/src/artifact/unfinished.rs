//! Parts of uploads that were interrupted and that nobody went on with: found by there being no object of theirs, and removed.

use std::collections::HashSet;

use async_nats::jetstream::stream::Stream;
use futures::StreamExt as _;
use nex_protocol::deploy::Location;

use super::error::{ArtifactError, store_error};
use crate::Client;

/// An upload that was never finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The name of its parts in the bucket.
    nuid: String,
    /// How many there are.
    pub parts: usize,
}

impl Client {
    /// Uploads to a bucket whose last part came before `before_ms`, milliseconds since 1970, and that have made no object.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn unfinished_uploads(
        &self,
        bucket: &str,
        before_ms: i64,
        domain: Option<&str>,
    ) -> Result<Vec<Unfinished>, ArtifactError> {
        let no_bucket = || ArtifactError::NoBucket(bucket.to_owned());
        let anywhere = Location::new(bucket, "*").ok_or_else(no_bucket)?;
        let failed = |error: async_nats::Error| store_error("list", &anywhere, error);
        let opened = self.open_bucket(&anywhere, domain).await?.ok_or_else(no_bucket)?;
        let stream = self.stream_of(bucket, domain).await.map_err(failed)?;
        let prefix = format!("$O.{bucket}.C.");
        let mut counts = stream.info_with_subjects(format!("{prefix}>")).await.map_err(|error| failed(error.into()))?;
        let mut begun = Vec::new();
        while let Some(count) = counts.next().await {
            let (subject, parts) = count.map_err(|error| failed(error.into()))?;
            begun.extend(subject.strip_prefix(&prefix).map(|nuid| Unfinished { nuid: nuid.to_owned(), parts }));
        }
        // Listed after the parts: an upload that was finished meanwhile is among them.
        let mut objects = opened.store.list().await.map_err(|error| failed(error.into()))?;
        let mut whole = HashSet::new();
        while let Some(object) = objects.next().await {
            whole.insert(object.map_err(|error| failed(error.into()))?.nuid);
        }
        let mut unfinished = Vec::new();
        for one in begun.into_iter().filter(|one| !whole.contains(&one.nuid)) {
            let last = stream.direct_get_last_for_subject(format!("{prefix}{}", one.nuid)).await;
            let at = last.map_err(|error| failed(error.into()))?.time.unix_timestamp_nanos() / 1_000_000;
            if at < i128::from(before_ms) {
                unfinished.push(one);
            }
        }
        Ok(unfinished)
    }

    /// Removes the parts of an upload that was never finished.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn remove_unfinished(&self, bucket: &str, upload: &Unfinished, domain: Option<&str>) -> Result<(), ArtifactError> {
        let anywhere = Location::new(bucket, "*").ok_or_else(|| ArtifactError::NoBucket(bucket.to_owned()))?;
        let failed = |error: async_nats::Error| store_error("remove parts in", &anywhere, error);
        let stream = self.stream_of(bucket, domain).await.map_err(failed)?;
        let purged = stream.purge().filter(format!("$O.{bucket}.C.{}", upload.nuid)).await;
        purged.map(drop).map_err(|error| failed(error.into()))
    }

    async fn stream_of(&self, bucket: &str, domain: Option<&str>) -> Result<Stream<()>, async_nats::Error> {
        Ok(self.jetstream(domain).get_stream_no_info(format!("OBJ_{bucket}")).await?)
    }
}

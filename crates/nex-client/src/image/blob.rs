//! A blob that is read from the bucket. Whoever reads it verifies its digest.

use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use nex_protocol::digest::Digest;
use nex_protocol::image_store::BlobRecord;

use super::entries::Messages;
use super::{ImageError, ImageStore, blob_key};

/// The bytes of a blob as they come.
pub struct BlobReader {
    messages: Messages,
    blob: BlobRecord,
    seen: u64,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("blob", &self.blob).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens a blob.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn blob(&self, blob: BlobRecord) -> Result<BlobReader, ImageError> {
        let (entry, _) = self.entries.last(&blob_key(blob.digest)).await?;
        let entry =
            entry.filter(|entry| !entry.object.deleted).ok_or_else(|| is(blob.digest, "is not in the bucket any more"))?;
        if entry.object.size != blob.size {
            return Err(is(blob.digest, "has another size in the bucket than its image says"));
        }
        let subject = self.entries.parts(&entry.object.nuid).ok_or_else(|| is(blob.digest, "has no parts in the bucket"))?;
        let messages = Box::pin(self.entries.consume(subject, DeliverPolicy::All)).await?;
        if messages.left() == 0 && blob.size > 0 {
            return Err(is(blob.digest, "has lost its parts in the bucket"));
        }
        Ok(BlobReader { messages, blob, seen: 0 })
    }
}

impl BlobReader {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        let Some(message) = self.messages.next().await? else { return Ok(None) };
        self.seen = self.seen.saturating_add(message.payload.len() as u64);
        if self.seen > self.blob.size {
            return Err(is(self.blob.digest, "has more bytes in the bucket than its image says"));
        }
        Ok(Some(message.payload.clone()))
    }
}

fn is(digest: Digest, what: &'static str) -> ImageError {
    ImageError::Blob { digest, what }
}

//! Pushes an image: first a note of what it needs, so that nothing of that is taken for unused; then the blobs that are missing; last the
//! tag, unless somebody else has pushed it meanwhile.
//!
//! A blob that is there already is written down once more, under the number that was seen: whoever removes unused blobs removes them by
//! their numbers too, so of the two one comes first and the other notices.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;
use nex_protocol::image_store::{BlobRecord, ImageName, ImageRecord, Key};

use super::{ImageError, ImageStore, TRIES, blob_key, tag_key};
use crate::artifact::{Artifact, ArtifactError, Lineage, Parts, Piece};

/// Blobs that are looked for at once.
const CONCURRENCY: usize = 8;
/// Pause after somebody else has changed what is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// A blob of an image that is to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalBlob {
    /// What it is.
    pub blob: BlobRecord,
    /// Where it begins in the archive, bytes.
    pub offset: u64,
}

/// An image that is to be pushed.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// What it is to be called.
    pub name: &'a ImageName,
    /// What it is.
    pub record: &'a ImageRecord,
    /// The archive that its blobs are in.
    pub archive: &'a Path,
    /// Where in it.
    pub blobs: &'a [LocalBlob],
    /// Send all blobs, also those that are there: some may be damaged.
    pub again: bool,
    /// Whether a bucket that is full is given a larger bound.
    pub may_grow: bool,
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the tag means now: more than was pushed, where the same image was there for other platforms.
    pub record: ImageRecord,
    /// Blobs that were sent.
    pub sent: Vec<BlobRecord>,
    /// Blobs that were there already.
    pub there: Vec<BlobRecord>,
    /// What the tag meant before, if that was another image.
    pub replaced: Option<Digest>,
    /// The bound that the bucket was given, if it was full, bytes.
    pub grown_to: Option<i64>,
}

impl ImageStore {
    /// Pushes an image. `progress` hears the bytes that are sent and the total of those that have to be.
    ///
    /// # Errors
    /// [`ImageError`]
    pub async fn push(&self, push: Push<'_>, mut progress: impl FnMut(u64, u64) + Send) -> Result<Pushed, ImageError> {
        push.record.check().map_err(|source| ImageError::Bounds { name: push.name.clone(), source })?;
        let (_, begun_at) = self.entries.last(&tag_key(push.name)).await?;
        let note = Key::Push(format!("{:032x}", rand::random::<u128>()));
        let pushed = Box::pin(self.push_noted(push, &note, begun_at, &mut progress)).await;
        // The note of a push that was ended by force is left out of account after a day.
        if let (Some(entry), _) = self.entries.last(&note).await? {
            self.entries.delete(&entry).await?;
        }
        pushed
    }

    async fn push_noted(
        &self,
        push: Push<'_>,
        note: &Key,
        begun_at: u64,
        progress: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<Pushed, ImageError> {
        let noted = self.entries.put_record(note, push.record, 0).await?;
        let mut noted = noted.ok_or_else(|| ImageError::Busy(note.to_string()))?;
        let looked_for = push.blobs.iter().map(|local| async move {
            let is_there = !push.again && self.claim(&local.blob).await?;
            Ok::<_, ImageError>((*local, is_there))
        });
        let found: Vec<_> = futures::stream::iter(looked_for).buffered(CONCURRENCY).try_collect().await?;
        let (there, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_there)| *is_there);
        let total = missing.iter().map(|(local, _)| local.blob.size).fold(0, u64::saturating_add);
        let grown_to = Box::pin(self.make_room(total, push.may_grow)).await?;
        let mut sent_bytes = 0;
        for (local, _) in &missing {
            Box::pin(self.send(local, push, &mut |sent| progress(sent_bytes + sent, total))).await?;
            sent_bytes += local.blob.size;
            // The note has to stay younger than the oldest that counts, however long it takes.
            noted = self.entries.put_record(note, push.record, noted).await?.ok_or_else(|| ImageError::Busy(note.to_string()))?;
        }
        let (record, replaced) = self.tag(push, begun_at).await?;
        let blobs = |found: Vec<(LocalBlob, bool)>| found.into_iter().map(|(local, _)| local.blob).collect();
        Ok(Pushed { record, sent: blobs(missing), there: blobs(there), replaced, grown_to })
    }

    /// Whether a blob is there; if so, nobody who thinks it unused removes it from now on.
    async fn claim(&self, blob: &BlobRecord) -> Result<bool, ImageError> {
        for _ in 0..TRIES {
            let (entry, sequence) = self.entries.last(&blob_key(blob.digest)).await?;
            let Some(entry) = entry.filter(|entry| entry.is(blob)) else { return Ok(false) };
            let Some(parts) = self.entries.parts(&entry.object.nuid) else { return Ok(false) };
            if blob.size > 0 && self.entries.stream.direct_get_last_for_subject(parts).await.is_err() {
                return Ok(false);
            }
            if self.entries.put(&entry.key, entry.body, sequence).await?.is_some() {
                return Ok(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ImageError::Busy(blob_key(blob.digest).to_string()))
    }

    /// Sends a blob, unless somebody else does so at the same time.
    async fn send(&self, local: &LocalBlob, push: Push<'_>, progress: &mut (impl FnMut(u64) + Send)) -> Result<(), ImageError> {
        let (blob, key) = (local.blob, blob_key(local.blob.digest));
        let location = Location { bucket: self.entries.bucket.clone(), key: key.to_string() };
        let artifact = Artifact { location, jetstream_domain: self.domain.clone(), digest: blob.digest, bytes: blob.size };
        for attempt in 0..TRIES {
            let (entry, sequence) = self.entries.last(&key).await?;
            let is_sent_by_another = attempt > 0 || !push.again;
            if is_sent_by_another && entry.as_ref().is_some_and(|entry| entry.is(&blob)) && self.claim(&blob).await? {
                return Ok(());
            }
            let lineage = match &entry {
                _ if push.again => Lineage::Fresh,
                Some(entry) if entry.object.deleted => Lineage::After(sequence),
                _ => Lineage::After(0),
            };
            let piece = Piece { path: push.archive, from: local.offset, is_rest: false };
            let context = self.entries.context.clone();
            let (parts, _) = Box::pin(Parts::find(context, &artifact, piece, lineage)).await?;
            Box::pin(parts.send(|sent, _| progress(sent))).await?;
            let body = serde_json::to_vec(&parts.entry()).unwrap_or_default();
            if self.entries.put(&key, body.into(), sequence).await?.is_some() {
                // Those of an object that was damaged, or removed.
                if let Some(old) = entry.filter(|entry| entry.object.nuid != parts.nuid()) {
                    self.entries.purge(&old.object.nuid).await.ok();
                }
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ImageError::Busy(key.to_string()))
    }

    /// Gives the bucket a larger bound, if these bytes need it; gives the bound.
    async fn make_room(&self, needed: u64, may_grow: bool) -> Result<Option<i64>, ImageError> {
        let opened = Box::pin(self.client.open_bucket(&self.client.images_location()?, self.domain.as_deref())).await?;
        let room = opened.ok_or_else(|| ArtifactError::NoBucket(self.entries.bucket.clone()))?.room();
        if room.is_enough(needed) {
            return Ok(None);
        }
        let (bucket, used, limit) = (self.entries.bucket.clone(), room.used, room.limit);
        if !may_grow {
            return Err(ImageError::Full { bucket, used, limit, needed });
        }
        // Room for the next version, too.
        let bound = i64::try_from(used.saturating_add(needed.saturating_mul(2))).unwrap_or(i64::MAX);
        self.client.bound_bucket(&bucket, bound, self.domain.as_deref()).await?;
        Ok(Some(bound))
    }

    /// Lets the tag mean the image.
    async fn tag(&self, push: Push<'_>, begun_at: u64) -> Result<(ImageRecord, Option<Digest>), ImageError> {
        let key = tag_key(push.name);
        let is_ours = |other: &ImageRecord| other.top == push.record.top;
        for _ in 0..TRIES {
            let (entry, sequence) = self.entries.last(&key).await?;
            let old = entry.filter(|entry| !entry.object.deleted).map(|entry| entry.record());
            if sequence != begun_at
                && let Some(Ok(other)) = &old
                && !is_ours(other)
            {
                return Err(ImageError::Overtaken { name: Box::new(push.name.clone()), now: other.top.digest });
            }
            let old = old.and_then(Result::ok);
            let record = match &old {
                Some(old) if is_ours(old) => push.record.clone().with(old),
                _ => push.record.clone(),
            };
            record.check().map_err(|source| ImageError::Bounds { name: push.name.clone(), source })?;
            if self.entries.put_record(&key, &record, sequence).await?.is_some() {
                return Ok((record, old.filter(|old| !is_ours(old)).map(|old| old.top.digest)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ImageError::Busy(push.name.to_string()))
    }
}

//! Blobs that no tag reaches and no push needs, and their removal, while others push.

use std::collections::HashSet;

use futures::StreamExt as _;
use nex_protocol::digest::Digest;
use nex_protocol::image_store::{BlobRecord, Key};

use super::entries::Entry;
use super::{ImageError, ImageStore};

/// How long a push counts as under way that says nothing of itself: it does so after each blob. Milliseconds.
const LIFE_OF_A_PUSH: i64 = 24 * 60 * 60 * 1_000;

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
    /// Only what was pushed before, milliseconds since 1970.
    pub before_ms: i64,
    /// Remove nothing.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: Vec<BlobRecord>,
    /// Blobs that are used.
    pub kept: usize,
    /// Blobs whose push was never finished.
    pub unfinished: usize,
    /// Pushes under way.
    pub pushes: usize,
}

/// What tags and pushes need.
#[derive(Default)]
struct Needs {
    blobs: HashSet<Digest>,
    /// Pushes under way.
    pushes: usize,
    /// Notes of pushes that count no more.
    stale: Vec<Entry>,
}

impl ImageStore {
    /// Removes the blobs that no tag reaches. A push under way has a note of what it needs, which counts as a tag does; one that begins
    /// meanwhile finds blobs removed and sends them, or claims them, and they stay.
    ///
    /// # Errors
    /// [`ImageError`]; a tag that cannot be read is one, for nobody knows what it reaches.
    pub async fn collect(&self, how: Collection) -> Result<Collected, ImageError> {
        let begun = self.begun().await?;
        let entries = self.entries.all().await?;
        let needs = self.needs(how).await?;
        let blobs = entries.into_iter().filter(|entry| matches!(entry.key, Key::Blob(_)) && !entry.object.deleted);
        let is_kept = |entry: &Entry| entry.at_ms >= how.before_ms || digest(entry).is_some_and(|it| needs.blobs.contains(&it));
        let (kept, unused): (Vec<_>, Vec<_>) = blobs.partition(is_kept);
        let parts = |entries: &[Entry]| entries.iter().map(|entry| entry.object.nuid.clone()).collect::<HashSet<_>>();
        let (staying, mut whole) = (parts(&kept), parts(&unused));
        let mut collected = Collected { kept: kept.len(), pushes: needs.pushes, ..Collected::default() };
        for entry in &unused {
            let Some(digest) = digest(entry) else { continue };
            if !how.dry_run {
                if !self.entries.delete(entry).await? {
                    // A push has claimed it.
                    collected.kept += 1;
                    continue;
                }
                // Two entries may claim the same parts.
                if !staying.contains(&entry.object.nuid) {
                    self.entries.purge(&entry.object.nuid).await?;
                }
            }
            collected.blobs.push(BlobRecord { digest, size: entry.object.size });
        }
        for entry in needs.stale.iter().filter(|_| !how.dry_run) {
            self.entries.delete(entry).await?;
        }
        whole.extend(staying);
        let begun = begun.into_iter().filter(|nuid| !whole.contains(nuid)).collect();
        collected.unfinished = Box::pin(self.collect_unfinished(begun, &needs, how)).await?;
        Ok(collected)
    }

    /// What is needed. Asked after blobs were listed: who had written one of them had a note before, and has it still, or a tag by now.
    /// So notes are read before tags.
    async fn needs(&self, how: Collection) -> Result<Needs, ImageError> {
        let mut needs = Needs::default();
        let is_there = |entry: &Entry| !entry.object.deleted;
        for entry in self.entries.each(|key| matches!(key, Key::Push(_))).await?.into_iter().filter(is_there) {
            if entry.at_ms < how.now_ms.saturating_sub(LIFE_OF_A_PUSH) {
                needs.stale.push(entry);
                continue;
            }
            needs.pushes += 1;
            needs.blobs.extend(entry.record().iter().flat_map(|record| &record.blobs).map(|blob| blob.digest));
        }
        for entry in self.entries.each(|key| matches!(key, Key::Tag(_))).await?.into_iter().filter(is_there) {
            let Key::Tag(name) = &entry.key else { continue };
            let record = entry.record().map_err(|source| ImageError::Record { name: name.clone(), source })?;
            needs.blobs.extend(record.blobs.iter().map(|blob| blob.digest));
        }
        Ok(needs)
    }

    /// Removes parts that no object has had when they were listed, unless one has them now; gives the number of blobs that they were of.
    async fn collect_unfinished(&self, begun: Vec<String>, needs: &Needs, how: Collection) -> Result<usize, ImageError> {
        // A push goes on with parts that it finds.
        if begun.is_empty() || needs.pushes > 0 {
            return Ok(0);
        }
        let needed = self.entries.now(needs.blobs.iter().copied().map(Key::Blob).collect()).await?;
        let whole: HashSet<&str> = needed.iter().map(|entry| entry.object.nuid.as_str()).collect();
        let mut unfinished = 0;
        for nuid in begun.iter().filter(|nuid| !whole.contains(nuid.as_str())) {
            if !self.is_older(nuid, how.before_ms).await? {
                continue;
            }
            if !how.dry_run {
                self.entries.purge(nuid).await?;
            }
            unfinished += 1;
        }
        Ok(unfinished)
    }

    /// Names of all parts.
    async fn begun(&self) -> Result<Vec<String>, ImageError> {
        let failed = |error: async_nats::Error| self.entries.failed("list parts", error);
        let prefix = format!("$O.{}.C.", self.entries.bucket);
        let counts = self.entries.stream.info_with_subjects(format!("{prefix}>")).await;
        let mut counts = counts.map_err(|error| failed(error.into()))?;
        let mut names = Vec::new();
        while let Some(count) = counts.next().await {
            let (subject, _) = count.map_err(|error| failed(error.into()))?;
            names.extend(subject.strip_prefix(&prefix).map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether the last part of that name came before.
    async fn is_older(&self, nuid: &str, before_ms: i64) -> Result<bool, ImageError> {
        let Some(subject) = self.entries.parts(nuid) else { return Ok(false) };
        match self.entries.stream.direct_get_last_for_subject(subject).await {
            Ok(last) => Ok(last.time.unix_timestamp_nanos() / 1_000_000 < i128::from(before_ms)),
            Err(_gone) => Ok(false),
        }
    }
}

fn digest(entry: &Entry) -> Option<Digest> {
    match entry.key {
        Key::Blob(digest) => Some(digest),
        Key::Tag(_) | Key::Push(_) => None,
    }
}

//! Sends a file in parts, so that an upload that was interrupted is gone on with by the next one of the same bytes.
//!
//! The object store keeps an object's parts under a name of their own, which is random as a rule. Here it follows from key and digest, so
//! that whoever uploads the same file finds the parts that are there. Each part is sent on the condition that nobody has sent another one
//! meanwhile: two uploads of one file at once make one object. Nodes verify the digest of what they fetch, whoever has put it together.

use std::path::Path;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use bytes::Bytes;
use data_encoding::BASE64URL;
use futures::StreamExt as _;
use nex_protocol::digest::{Digest, Hasher};
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::Artifact;
use super::error::{ArtifactError, store_error};

/// Size of a part, bytes.
const PART: u64 = 128 * 1024;
/// Pause after somebody else has sent a part of the same file, and how often in a row nothing may have come of it.
const PAUSE: Duration = Duration::from_millis(200);
const TRIES: u32 = 25;

/// Where the bytes of an object are read from: a file, or a piece of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) path: &'a Path,
    /// Where it begins, in bytes.
    pub(crate) from: u64,
    /// Whether the file ends with it.
    pub(crate) is_rest: bool,
}

/// What the name of an object's parts follows from besides its key and digest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lineage {
    /// Nothing, or the number of the entry by which an object of this key was removed: its parts may be about to be purged, and are not
    /// gone on from.
    After(u64),
    /// Chance: what is there is not gone on from.
    Fresh,
}

/// The parts of one object.
pub(crate) struct Parts<'a> {
    context: Context,
    stream: Stream<()>,
    artifact: &'a Artifact,
    piece: Piece<'a>,
    nuid: String,
}

/// What is there of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Begun {
    parts: u64,
    /// Number of the last part in its stream.
    sequence: u64,
}

/// Why sending has stopped.
enum Stopped {
    /// Somebody else sends the same file.
    Overtaken,
    Failed(ArtifactError),
}

impl From<ArtifactError> for Stopped {
    fn from(error: ArtifactError) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Parts<'a> {
    /// Those of an artifact, and how many bytes of it are there.
    pub(crate) async fn find(
        context: Context,
        artifact: &'a Artifact,
        piece: Piece<'a>,
        lineage: Lineage,
    ) -> Result<(Self, u64), ArtifactError> {
        let location = &artifact.location;
        let stream = context.get_stream_no_info(format!("OBJ_{}", location.bucket)).await;
        let stream = stream.map_err(|error| store_error("upload", location, error))?;
        let after = match lineage {
            Lineage::After(entry @ 1..) => format!("\n{entry}"),
            Lineage::After(0) | Lineage::Fresh => String::new(),
        };
        let name = Digest::of(format!("{}\n{}{after}", location.key, artifact.digest).as_bytes()).to_string();
        let mut parts = Self { context, stream, artifact, piece, nuid: format!("nex{}", name.get(..32).unwrap_or_default()) };
        let found = match lineage {
            Lineage::After(_) => parts.begun().await?,
            Lineage::Fresh => None,
        };
        let begun = match found {
            Some(begun) => begun,
            // What lies under this name is not of this file, or cannot be looked at.
            None => {
                parts.nuid = format!("nex{:032x}", rand::random::<u128>());
                Begun::default()
            }
        };
        Ok((parts, (begun.parts * PART).min(artifact.bytes)))
    }

    /// The name under which they lie.
    pub(crate) fn nuid(&self) -> &str {
        &self.nuid
    }

    fn subject(&self) -> String {
        format!("$O.{}.C.{}", self.artifact.location.bucket, self.nuid)
    }

    fn error(&self, error: impl Into<async_nats::Error>) -> ArtifactError {
        store_error("upload", &self.artifact.location, error)
    }

    /// What an earlier upload has sent; none if that is not the beginning of this file.
    async fn begun(&self) -> Result<Option<Begun>, ArtifactError> {
        let subject = self.subject();
        let last = match self.stream.direct_get_last_for_subject(subject.clone()).await {
            Ok(last) => last,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(Some(Begun::default())),
            Err(_) => return Ok(None),
        };
        let mut counts = self.stream.info_with_subjects(subject).await.map_err(|error| self.error(error))?;
        let mut parts = 0_u64;
        while let Some(count) = counts.next().await {
            parts += count.map_err(|error| self.error(error))?.1 as u64;
        }
        let from = parts.saturating_sub(1) * PART;
        if parts == 0 || from >= self.artifact.bytes {
            return Ok(None);
        }
        let own = self.piece.read(from, PART.min(self.artifact.bytes - from)).await;
        Ok(own.ok().filter(|own| *own == last.payload).map(|_| Begun { parts, sequence: last.sequence }))
    }

    /// Sends what is missing. `progress` hears the bytes that are there and the total.
    pub(crate) async fn send(&self, mut progress: impl FnMut(u64, u64) + Send) -> Result<(), ArtifactError> {
        let (mut tries, mut most) = (0, 0);
        loop {
            let begun = self.begun().await?.unwrap_or_default();
            match Box::pin(self.send_from(begun, &mut progress)).await {
                Ok(()) => return Ok(()),
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::Overtaken) => {
                    tries = if begun.parts > most { 0 } else { tries + 1 };
                    most = most.max(begun.parts);
                    if tries > TRIES {
                        return Err(self.error("somebody else uploads the same file, and does not get on"));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn send_from(&self, begun: Begun, progress: &mut (impl FnMut(u64, u64) + Send)) -> Result<(), Stopped> {
        let path = self.piece.path;
        let changed = || ArtifactError::Changed(path.to_owned());
        let failed = |source| ArtifactError::File { path: path.to_owned(), source };
        let (mut file, bytes) = (self.piece.open(0).await.map_err(failed)?, self.artifact.bytes);
        let (mut hasher, mut sequence) = (Hasher::default(), begun.sequence);
        for index in 0..bytes.div_ceil(PART) {
            let size = PART.min(bytes - index * PART);
            let mut part = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact(&mut part).await.map_err(|_short| changed())?;
            hasher.update(&part);
            if index >= begun.parts {
                sequence = self.publish(part.into(), sequence).await?;
            }
            progress(index * PART + size, bytes);
        }
        let is_at_end = !self.piece.is_rest || file.read(&mut [0]).await.map_err(failed)? == 0;
        if is_at_end && hasher.finish() == (self.artifact.digest, bytes) {
            return Ok(());
        }
        // They are of no use to anybody; who may not remove them leaves them to `nex artifact gc`.
        self.stream.purge().filter(self.subject()).await.ok();
        Err(changed().into())
    }

    /// Sends a part that follows the one of this number; gives its own.
    async fn publish(&self, part: Bytes, after: u64) -> Result<u64, Stopped> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string().as_str());
        let sent = self.context.publish_with_headers(self.subject(), headers, part).await.map_err(|error| self.error(error))?;
        match sent.await {
            Ok(ack) => Ok(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(Stopped::Overtaken),
            Err(error) => Err(self.error(error).into()),
        }
    }

    /// The entry by which the object is there, as the object store's own clients write it.
    pub(crate) fn entry(&self) -> serde_json::Value {
        let Artifact { location, digest, bytes, .. } = self.artifact;
        json!({
            "name": location.key, "bucket": location.bucket, "nuid": self.nuid, "size": bytes, "chunks": bytes.div_ceil(PART),
            "mtime": jiff::Timestamp::now().to_string(), "digest": format!("SHA-256={}", BASE64URL.encode(&digest.bytes())),
            "options": { "max_chunk_size": PART },
        })
    }

    /// Says that the object is there.
    pub(super) async fn publish_object(&self) -> Result<(), ArtifactError> {
        let location = &self.artifact.location;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        let subject = format!("$O.{}.M.{}", location.bucket, BASE64URL.encode(location.key.as_bytes()));
        let body = serde_json::to_vec(&self.entry()).unwrap_or_default();
        let sent = self.context.publish_with_headers(subject, headers, body.into()).await.map_err(|error| self.error(error))?;
        sent.await.map(drop).map_err(|error| self.error(error))
    }

    /// Removes the parts of the object that was there before under the same key.
    pub(super) async fn remove_old(&self, nuid: &str) {
        // It is the word of whoever wrote the entry, and may be no pattern that others' parts fit.
        let is_plain = nuid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if nuid == self.nuid || nuid.is_empty() || !is_plain {
            return;
        }
        let subject = format!("$O.{}.C.{nuid}", self.artifact.location.bucket);
        if let Err(error) = self.stream.purge().filter(subject).await {
            tracing::debug!(%error, "the parts of the object that was replaced stay");
        }
    }
}

impl Piece<'_> {
    async fn open(&self, at: u64) -> std::io::Result<File> {
        use tokio::io::AsyncSeekExt as _;
        let mut file = File::open(self.path).await?;
        file.seek(std::io::SeekFrom::Start(self.from + at)).await?;
        Ok(file)
    }

    async fn read(&self, at: u64, size: u64) -> std::io::Result<Bytes> {
        let mut part = vec![0; usize::try_from(size).unwrap_or_default()];
        self.open(at).await?.read_exact(&mut part).await?;
        Ok(part.into())
    }
}

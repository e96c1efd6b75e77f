//! Entries of the bucket: one for each object, read with its number and replaced only where nobody else has replaced it. *Trust:* anybody
//! with a right to write there has written them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use data_encoding::BASE64URL;
use futures::{StreamExt as _, TryStreamExt as _};
use nex_protocol::digest::Digest;
use nex_protocol::image_store::{BlobRecord, ImageRecord, InvalidRecord, Key, RECORD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ImageError;

/// Longest silence of the server in a list or a blob.
const SILENCE: Duration = Duration::from_secs(20);
/// Most objects of a bucket that are looked at: as many as the server names at once.
const MAX_ENTRIES: usize = 100_000;
/// Entries that are read at once.
const CONCURRENCY: usize = 16;

/// The entry of an object, as the object store's own clients write it; what is not needed is left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    name: String,
    #[serde(default)]
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// An entry that is there.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// When the server got it, milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) object: Object,
    /// The entry as it was written.
    pub(super) body: Bytes,
}

impl Entry {
    fn read(key: Key, (sequence, at_ms): (u64, i64), body: Bytes) -> Option<Self> {
        let object: Object = serde_json::from_slice(&body).ok()?;
        (object.name == key.to_string()).then_some(Self { key, sequence, at_ms, object, body })
    }

    /// Whether it says that this blob is there.
    pub(super) fn is(&self, blob: &BlobRecord) -> bool {
        let digest = self.object.digest.as_deref().and_then(Digest::from_object_store);
        !self.object.deleted && self.object.size == blob.size && digest == Some(blob.digest)
    }

    /// The image that it records.
    pub(super) fn record(&self) -> Result<ImageRecord, InvalidRecord> {
        ImageRecord::read(self.object.metadata.get(RECORD).map_or("", String::as_str))
    }
}

/// The bucket of a namespace's images.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    pub(super) nats: async_nats::Client,
    pub(super) context: Context,
    pub(super) stream: Stream<()>,
    pub(super) bucket: String,
}

impl Entries {
    pub(super) fn failed(&self, what: &'static str, source: impl Into<async_nats::Error>) -> ImageError {
        ImageError::Failed { what, bucket: self.bucket.clone(), source: source.into() }
    }

    fn subject(&self, key: &Key) -> String {
        format!("$O.{}.M.{}", self.bucket, BASE64URL.encode(key.to_string().as_bytes()))
    }

    /// Subject of an object's parts; none where its name could stand for those of others.
    pub(super) fn parts(&self, nuid: &str) -> Option<String> {
        is_plain(nuid).then(|| format!("$O.{}.C.{nuid}", self.bucket))
    }

    /// The entry of an object. One that cannot be read is as good as none, but for its number.
    pub(super) async fn last(&self, key: &Key) -> Result<(Option<Entry>, u64), ImageError> {
        match self.stream.direct_get_last_for_subject(self.subject(key)).await {
            Ok(message) => {
                let at = (message.sequence, milliseconds(message.time.unix_timestamp_nanos()));
                Ok((Entry::read(key.clone(), at, message.payload), message.sequence))
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok((None, 0)),
            Err(error) => Err(self.failed("look up an image", error)),
        }
    }

    /// The entries of these objects, of all that are there now. Unlike in [`Self::all`], none is missing that is replaced meanwhile.
    pub(super) async fn each(&self, is_wanted: impl Fn(&Key) -> bool) -> Result<Vec<Entry>, ImageError> {
        let failed = |error: async_nats::Error| self.failed("list images", error);
        let prefix = format!("$O.{}.M.", self.bucket);
        let subjects = self.stream.info_with_subjects(format!("{prefix}>")).await;
        let mut subjects = subjects.map_err(|error| failed(error.into()))?;
        let (mut keys, mut count) = (Vec::new(), 0);
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| failed(error.into()))?;
            let name = subject.strip_prefix(&prefix).and_then(|name| BASE64URL.decode(name.as_bytes()).ok());
            keys.extend(name.and_then(|name| Key::of(&String::from_utf8(name).ok()?)).filter(&is_wanted));
            count += 1;
            if count > MAX_ENTRIES {
                return Err(failed("it has more than 100,000 objects".into()));
            }
        }
        self.now(keys).await
    }

    /// The entries of these objects as they are now: the leader of the stream is asked, not one of those that follow it.
    pub(super) async fn now(&self, keys: Vec<Key>) -> Result<Vec<Entry>, ImageError> {
        let reads = keys.into_iter().map(|key| async move {
            match self.stream.get_last_raw_message_by_subject(&self.subject(&key)).await {
                Ok(message) => {
                    let at = (message.sequence, milliseconds(message.time.unix_timestamp_nanos()));
                    Ok(Entry::read(key, at, message.payload))
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(self.failed("look up an image", error)),
            }
        });
        let read: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENCY).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// All entries that are understood; what else lies in the bucket is not looked at. One that is replaced meanwhile may be missing.
    pub(super) async fn all(&self) -> Result<Vec<Entry>, ImageError> {
        let failed = |error: async_nats::Error| self.failed("list images", error);
        let mut messages = Box::pin(self.consume(format!("$O.{}.M.>", self.bucket), DeliverPolicy::LastPerSubject)).await?;
        let mut entries = Vec::new();
        while let Some(message) = messages.next().await? {
            let Ok(object) = serde_json::from_slice::<Object>(&message.payload) else { continue };
            let Some(key) = Key::of(&object.name).filter(|key| self.subject(key) == message.subject.as_str()) else { continue };
            let info = message.info().map_err(failed)?;
            let at = (info.stream_sequence, milliseconds(info.published.unix_timestamp_nanos()));
            entries.extend(Entry::read(key, at, message.payload.clone()));
            if entries.len() > MAX_ENTRIES {
                return Err(failed("it has more than 100,000 objects".into()));
            }
        }
        Ok(entries)
    }

    /// What lies under a subject, to its present end.
    pub(super) async fn consume(&self, subject: String, deliver_policy: DeliverPolicy) -> Result<Messages, ImageError> {
        let config = OrderedConfig {
            deliver_subject: self.nats.new_inbox(),
            filter_subject: subject,
            deliver_policy,
            ..OrderedConfig::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(|error| self.failed("read", error))?;
        let left = consumer.cached_info().num_pending;
        let ordered = consumer.messages().await.map_err(|error| self.failed("read", error))?;
        Ok(Messages { ordered, left, bucket: self.bucket.clone() })
    }

    /// Writes an entry, if the last one has this number; gives its own number. `None`: somebody else has written one.
    pub(super) async fn put(&self, key: &Key, body: Bytes, after: u64) -> Result<Option<u64>, ImageError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string().as_str());
        let failed = |error: async_nats::Error| self.failed("keep an image", error);
        let sent = self.context.publish_with_headers(self.subject(key), headers, body).await;
        match sent.map_err(|error| failed(error.into()))?.await {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Writes the entry of an object that is nothing but a record.
    pub(super) async fn put_record(&self, key: &Key, record: &ImageRecord, after: u64) -> Result<Option<u64>, ImageError> {
        let record = serde_json::to_string(record).unwrap_or_default();
        let body = json!({
            "name": key.to_string(), "bucket": self.bucket, "nuid": "", "size": 0, "chunks": 0,
            "mtime": jiff::Timestamp::now().to_string(), "metadata": { RECORD: record },
        });
        self.put(key, serde_json::to_vec(&body).unwrap_or_default().into(), after).await
    }

    /// Says that an object is not there any more, as the object store's own clients do; its parts stay.
    pub(super) async fn delete(&self, entry: &Entry) -> Result<bool, ImageError> {
        let body: Value = json!({
            "name": entry.key.to_string(), "bucket": self.bucket, "nuid": entry.object.nuid, "size": 0, "chunks": 0,
            "mtime": jiff::Timestamp::now().to_string(), "deleted": true,
        });
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Ok(self.put(&entry.key, body.into(), entry.sequence).await?.is_some())
    }

    /// Removes the parts of an object.
    pub(super) async fn purge(&self, nuid: &str) -> Result<(), ImageError> {
        let Some(subject) = self.parts(nuid) else { return Ok(()) };
        self.stream.purge().filter(subject).await.map(drop).map_err(|error| self.failed("remove parts", error))
    }
}

/// Messages of a stream, as many as there were.
pub(super) struct Messages {
    ordered: Ordered,
    left: u64,
    bucket: String,
}

impl Messages {
    /// How many there are still.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next one; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<async_nats::jetstream::Message>, ImageError> {
        let failed = |source| ImageError::Failed { what: "read", bucket: self.bucket.clone(), source };
        if self.left == 0 {
            return Ok(None);
        }
        match tokio::time::timeout(SILENCE, self.ordered.next()).await {
            Ok(Some(Ok(message))) => {
                self.left = message.info().map_err(failed)?.pending;
                Ok(Some(message))
            }
            Ok(Some(Err(error))) => Err(failed(error.into())),
            Ok(None) => Ok(None),
            Err(_silence) => Err(failed("nothing more comes of it; somebody may have removed it meanwhile".into())),
        }
    }
}

/// Whether the name of an object's parts is one, and no pattern.
fn is_plain(nuid: &str) -> bool {
    (1..=64).contains(&nuid.len()) && nuid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn milliseconds(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds / 1_000_000).unwrap_or_default()
}

//! `objectstore`: an object bucket of the workload's own.

use async_nats::Client;
use async_nats::jetstream::object_store::{DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures::TryStreamExt as _;
use nex_protocol::host::HostError;
use tokio::io::AsyncReadExt as _;

use crate::bucket::{Bucket, Handles, Kind};
use crate::call::{CallContext, MAX_ANSWER};
use crate::config::BucketConfig;
use crate::error::{in_time, refuse, unknown_method};

/// Longest object name; in base64 it is part of a subject.
const MAX_NAME: usize = 512;
/// Size of the pieces an object is stored in, unless NATS takes only smaller ones.
const CHUNK: usize = 128 * 1024;
/// What JetStream stores beside a piece, and beside an object: subject, headers, description. Rounded up.
const CHUNK_OVERHEAD: usize = 256;
const OBJECT_OVERHEAD: usize = 2048;

#[derive(Debug)]
pub(crate) struct Objects {
    config: BucketConfig,
    stores: Handles<Store>,
}

struct Store {
    jetstream: Context,
    objects: ObjectStore,
    stream: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Objects {
    pub(crate) fn new(config: BucketConfig) -> Self {
        Self { config, stores: Handles::new() }
    }

    pub(crate) fn forget(&self, nats: &Client) {
        self.stores.forget(nats);
    }

    /// The bucket of a caller.
    pub(crate) fn bucket(&self, caller: &CallContext) -> Bucket<'_> {
        Bucket::new(Kind::Objects, &self.config, caller)
    }

    pub(crate) async fn call(&self, caller: &CallContext, method: &str, name: &str, body: &Bytes) -> Result<Bytes, HostError> {
        match method {
            "get" | "put" | "delete" | "info" => check_name(name)?,
            "list" => {}
            _ => return Err(unknown_method("objectstore", method, "get, put, delete, list and info")),
        }
        let bucket = self.bucket(caller);
        let answer = in_time("objectstore", async {
            let store = self.stores.get_or_open(caller, &bucket, || open(caller, &bucket)).await?;
            match method {
                "get" => store.get(name).await,
                "put" => store.put(&caller.nats, name, body).await,
                "delete" => store.delete(name).await,
                "info" => store.info(name).await,
                _ => store.list().await,
            }
        });
        let answer = answer.await;
        self.stores.judge(caller, &bucket, &answer);
        answer
    }
}

async fn open(caller: &CallContext, bucket: &Bucket<'_>) -> Result<Store, HostError> {
    let jetstream = jetstream::new(caller.nats.clone());
    bucket.ensure(&jetstream).await?;
    let objects = jetstream.get_object_store(&bucket.name).await;
    let objects = objects.map_err(|error| refuse(500, format!("could not resolve object store: {error}")))?;
    Ok(Store { jetstream, objects, stream: Kind::Objects.stream(&bucket.name) })
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(refuse(400, "name is required"));
    }
    if name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(refuse(400, format!("the name is not one of 1 to {MAX_NAME} bytes without control characters")));
    }
    Ok(())
}

impl Store {
    async fn get(&self, name: &str) -> Result<Bytes, HostError> {
        let mut object = self.objects.get(name).await.map_err(|error| match error.kind() {
            GetErrorKind::NotFound => refuse(404, format!("failed to get object '{name}': there is no such object")),
            _ => refuse(500, format!("failed to get object '{name}': {error}")),
        })?;
        let size = object.info().size;
        if size > MAX_ANSWER {
            let text = format!("failed to get object '{name}': it is {size} bytes; a function can be given at most {MAX_ANSWER}");
            return Err(refuse(413, text));
        }
        let mut bytes = Vec::with_capacity(size);
        // What the description says is checked, what the pieces hold is not: hence the second bound.
        let mut reader = (&mut object).take(u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX));
        let read = reader.read_to_end(&mut bytes).await;
        read.map_err(|error| refuse(500, format!("failed to get object '{name}': {error}")))?;
        if bytes.len() != size {
            return Err(refuse(500, format!("failed to get object '{name}': it is damaged; put it again")));
        }
        Ok(bytes.into())
    }

    async fn put(&self, nats: &Client, name: &str, body: &Bytes) -> Result<Bytes, HostError> {
        let failed = |why: String| refuse(500, format!("failed to put object '{name}': {why}"));
        if body.len() > MAX_ANSWER {
            let text = format!("failed to put object '{name}': it is {} bytes; at most {MAX_ANSWER} are taken", body.len());
            return Err(refuse(413, text));
        }
        self.check_room(name, body.len()).await?;
        let chunk_size = Some(CHUNK.min(nats.max_payload().max(1)));
        let meta = ObjectMetadata { name: name.to_owned(), chunk_size, ..ObjectMetadata::default() };
        let info = self.objects.put(meta, &mut body.as_ref()).await.map_err(|error| failed(error.to_string()))?;
        serde_json::to_vec(&info).map(Bytes::from).map_err(|error| failed(error.to_string()))
    }

    /// An object that stops half-way leaves its pieces in the bucket for good, so what cannot fit is not begun.
    async fn check_room(&self, name: &str, size: usize) -> Result<(), HostError> {
        let stream = self.jetstream.get_stream(&self.stream).await;
        let stream = stream.map_err(|error| refuse(500, format!("failed to put object '{name}': {error}")))?;
        let info = stream.cached_info();
        let Ok(limit) = u64::try_from(info.config.max_bytes) else { return Ok(()) };
        let needed = size + size.div_ceil(CHUNK) * CHUNK_OVERHEAD + OBJECT_OVERHEAD;
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        if limit == 0 || info.state.bytes.saturating_add(needed) <= limit {
            return Ok(());
        }
        let text = format!(
            "failed to put object '{name}': its {size} bytes do not fit into the bucket {}, which holds {} of at most {limit}; \
             delete objects, or raise its max_bytes",
            self.objects_name(),
            info.state.bytes
        );
        Err(refuse(507, text))
    }

    fn objects_name(&self) -> &str {
        self.stream.strip_prefix("OBJ_").unwrap_or(&self.stream)
    }

    async fn delete(&self, name: &str) -> Result<Bytes, HostError> {
        self.objects.delete(name).await.map_err(|error| match error.kind() {
            DeleteErrorKind::NotFound => refuse(404, format!("failed to delete object '{name}': there is no such object")),
            _ => refuse(500, format!("failed to delete object '{name}': {error}")),
        })?;
        Ok(Bytes::from_static(br#"{"success":true}"#))
    }

    /// The description of an object.
    async fn info(&self, name: &str) -> Result<Bytes, HostError> {
        let info = self.objects.info(name).await.map_err(|error| match error.kind() {
            InfoErrorKind::NotFound => refuse(404, format!("failed to describe object '{name}': there is no such object")),
            _ => refuse(500, format!("failed to describe object '{name}': {error}")),
        })?;
        if info.deleted {
            return Err(refuse(404, format!("failed to describe object '{name}': there is no such object")));
        }
        serde_json::to_vec(&info)
            .map(Bytes::from)
            .map_err(|error| refuse(500, format!("failed to describe object '{name}': {error}")))
    }

    async fn list(&self) -> Result<Bytes, HostError> {
        let failed = |why: String| refuse(500, format!("failed to list objects: {why}"));
        let mut found = self.objects.list().await.map_err(|error| failed(error.to_string()))?;
        let mut list = vec![b'['];
        while let Some(info) = found.try_next().await.map_err(|error| failed(error.to_string()))? {
            if list.len() > 1 {
                list.push(b',');
            }
            serde_json::to_writer(&mut list, &info).map_err(|error| failed(error.to_string()))?;
            if list.len() >= MAX_ANSWER {
                return Err(refuse(413, format!("failed to list objects: there are more than fit into {MAX_ANSWER} bytes")));
            }
        }
        list.push(b']');
        Ok(list.into())
    }
}

//! Buckets: made at the first use, each with its owner written on it; handles are kept, so a call asks for no stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{Context, ErrorCode, kv, object_store};
use async_nats::{Client, Statistics};
use nex_protocol::host::{HostError, Service};

use crate::call::CallContext;
use crate::config::BucketConfig;
use crate::error::{jetstream_code, refuse};

/// Most handles kept; the one unused for longest makes room.
const MAX_HANDLES: usize = 512;
/// How long an unused handle, and with it its connection, is kept.
const MAX_IDLE: Duration = Duration::from_secs(300);
/// How the description of a bucket begins that was made here; the owner follows.
const MADE_HERE: &str = "nex host service";

/// What a bucket holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    KeyValue,
    Objects,
}

impl Kind {
    fn service(self) -> Service {
        match self {
            Self::KeyValue => Service::KeyValue,
            Self::Objects => Service::ObjectStore,
        }
    }

    /// How JetStream names the stream behind a bucket.
    pub(crate) fn stream(self, bucket: &str) -> String {
        match self {
            Self::KeyValue => format!("KV_{bucket}"),
            Self::Objects => format!("OBJ_{bucket}"),
        }
    }

    fn unresolved(self) -> &'static str {
        match self {
            Self::KeyValue => "could not resolve k/v store",
            Self::Objects => "could not resolve object store",
        }
    }
}

/// The bucket of one workload.
#[derive(Debug)]
pub(crate) struct Bucket<'c> {
    kind: Kind,
    config: &'c BucketConfig,
    /// Its name.
    pub(crate) name: String,
    /// Service and owner in words, written on the bucket. Handles are kept by it, not by the name: another owner whose
    /// name joins alike must not be handed this one's.
    pub(crate) description: String,
}

impl<'c> Bucket<'c> {
    pub(crate) fn new(kind: Kind, config: &'c BucketConfig, caller: &CallContext) -> Self {
        let name = config.bucket_name.name(&caller.namespace, &caller.workload);
        let owner = config.bucket_name.owner(&caller.namespace, &caller.workload);
        Self { kind, config, name, description: format!("{MADE_HERE} {}: {owner}", kind.service()) }
    }

    /// The stream behind it.
    pub(crate) fn stream(&self) -> String {
        self.kind.stream(&self.name)
    }

    /// Sees to it that the bucket is there and may be used by the caller.
    pub(crate) async fn ensure(&self, jetstream: &Context) -> Result<(), HostError> {
        if self.find(jetstream).await? {
            return Ok(());
        }
        if !self.config.jit_provision {
            let text =
                format!("{}: the bucket {} does not exist, and jit_provision is off: make it", self.kind.unresolved(), self.name);
            return Err(refuse(404, text));
        }
        let Err(why) = self.create(jetstream).await else { return Ok(()) };
        // Somebody with another size in mind may have been faster.
        if self.find(jetstream).await? { Ok(()) } else { Err(refuse(500, format!("{}: {why}", self.kind.unresolved()))) }
    }

    async fn find(&self, jetstream: &Context) -> Result<bool, HostError> {
        match jetstream.get_stream(self.kind.stream(&self.name)).await {
            Ok(stream) => self.admit(stream.cached_info().config.description.as_deref().unwrap_or_default()).map(|()| true),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(false),
                _ => Err(self.no_jetstream(&error)),
            },
        }
    }

    /// `a_b`+`c` and `a`+`b_c` fill the usual template alike: whose name is written on the bucket has it.
    /// One that was not made here belongs to who named it.
    fn admit(&self, description: &str) -> Result<(), HostError> {
        if !description.starts_with(MADE_HERE) || description == self.description {
            return Ok(());
        }
        let text = format!(
            "{}: the bucket {} belongs to another workload ({description}); rename this one, or set a bucket_name that keeps them apart",
            self.kind.unresolved(),
            self.name
        );
        Err(refuse(403, text))
    }

    async fn create(&self, jetstream: &Context) -> Result<(), String> {
        let (bucket, max_bytes) = (self.name.clone(), self.config.max_bytes);
        match self.kind {
            Kind::KeyValue => {
                let description = self.description.clone();
                let config = kv::Config { bucket, description, max_bytes, history: 1, ..kv::Config::default() };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| error.to_string())
            }
            Kind::Objects => {
                let description = Some(self.description.clone());
                let config = object_store::Config { bucket, description, max_bytes, ..object_store::Config::default() };
                jetstream.create_object_store(config).await.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    fn no_jetstream(&self, error: &GetStreamError) -> HostError {
        let off = match error.kind() {
            GetStreamErrorKind::JetStream(error) => {
                [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT].contains(&error.error_code())
            }
            _ => no_responders(error),
        };
        let why = self.kind.unresolved();
        if off {
            let text = "JetStream is not enabled on the NATS server or account of this workload's connection: enable it";
            return refuse(503, format!("{why}: {text}"));
        }
        refuse(500, format!("{why}: {error}"))
    }
}

fn no_responders(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        error
            .downcast_ref::<async_nats::jetstream::context::RequestError>()
            .is_some_and(|error| error.kind() == async_nats::jetstream::context::RequestErrorKind::NoResponders)
    })
}

/// Whether an error says that the bucket is full.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    jetstream_code(error) == Some(ErrorCode::STREAM_STORE_FAILED)
}

/// Handles of buckets, by connection and the bucket's description.
#[derive(Debug)]
pub(crate) struct Handles<H>(Mutex<HashMap<(usize, String), Kept<H>>>);

#[derive(Debug)]
struct Kept<H> {
    handle: Arc<H>,
    used: Instant,
    /// Keeps the address that stands for the connection from being used again.
    _connection: Arc<Statistics>,
}

impl<H> Handles<H> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The handle of a caller's bucket: the one kept, or what `open` makes.
    pub(crate) async fn get_or_open<O: Future<Output = Result<H, HostError>>>(
        &self,
        caller: &CallContext,
        bucket: &Bucket<'_>,
        open: impl FnOnce() -> O,
    ) -> Result<Arc<H>, HostError> {
        match self.get(&caller.nats, bucket) {
            Some(handle) => Ok(handle),
            // Boxed: what happens once makes no call larger.
            None => Ok(self.put(&caller.nats, bucket, Box::pin(open()).await?)),
        }
    }

    /// After a call: where the bucket itself may be gone, its handle goes, and the next call looks it up again.
    pub(crate) fn judge<T>(&self, caller: &CallContext, bucket: &Bucket<'_>, answer: &Result<T, HostError>) {
        // 507 says that the bucket is there, and full.
        if answer.as_ref().is_err_and(|error| error.code >= 500 && error.code != 507) {
            self.lock().remove(&(connection(&caller.nats), bucket.description.clone()));
        }
    }

    fn get(&self, nats: &Client, bucket: &Bucket<'_>) -> Option<Arc<H>> {
        let mut kept = self.lock();
        let found = kept.get_mut(&(connection(nats), bucket.description.clone()))?;
        found.used = Instant::now();
        Some(Arc::clone(&found.handle))
    }

    fn put(&self, nats: &Client, bucket: &Bucket<'_>, handle: H) -> Arc<H> {
        let (handle, used) = (Arc::new(handle), Instant::now());
        let mut kept = self.lock();
        kept.retain(|_, entry| entry.used.elapsed() < MAX_IDLE);
        if kept.len() >= MAX_HANDLES
            && let Some(oldest) = kept.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
        {
            kept.remove(&oldest);
        }
        let entry = Kept { handle: Arc::clone(&handle), used, _connection: nats.statistics() };
        kept.insert((connection(nats), bucket.description.clone()), entry);
        handle
    }

    pub(crate) fn forget(&self, nats: &Client) {
        let gone = connection(nats);
        self.lock().retain(|(connection, _), _| *connection != gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(usize, String), Kept<H>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All clones of a client share one block of statistics, and no two connections do.
fn connection(nats: &Client) -> usize {
    Arc::as_ptr(&nats.statistics()).addr()
}

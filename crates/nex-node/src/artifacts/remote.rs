//! An artifact in an object store of NATS.

use async_nats::jetstream;
use async_nats::jetstream::object_store::{GetError, Object, ObjectInfo, ObjectStore};
use nex_process::{Deadline, Elapsed};
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;

use super::error::{Defect, FetchError};

/// What the object store says of an artifact, before a byte of it is fetched.
pub struct RemoteArtifact {
    object: ObjectInfo,
    store: ObjectStore,
    /// Where it is.
    pub(super) location: Location,
    domain: String,
}

impl std::fmt::Debug for RemoteArtifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteArtifact").field("location", &self.location).field("object", &self.object).finish_non_exhaustive()
    }
}

impl RemoteArtifact {
    /// Asks the object store. Bounded by the deadline.
    ///
    /// # Errors
    /// A [`FetchError`] that says whether the bucket, the object or JetStream is missing.
    pub async fn look_up(
        nats: &async_nats::Client,
        location: &Location,
        domain: Option<&str>,
        by: Deadline,
    ) -> Result<Self, FetchError> {
        let context = match domain.filter(|domain| !domain.is_empty()) {
            Some(domain) => jetstream::with_domain(nats.clone(), domain),
            None => jetstream::new(nats.clone()),
        };
        let late = |Elapsed| FetchError::at("asking for", location, Defect::Unanswered);
        let store = by.bound(context.get_object_store(&location.bucket)).await.map_err(late)?;
        let store = store.map_err(|e| FetchError::at("no bucket for", location, e))?;
        let object = by.bound(store.info(&location.key)).await.map_err(late)?;
        let object = object.map_err(|e| FetchError::at("no object", location, e))?;
        if object.deleted {
            return Err(FetchError::at("no object", location, Defect::Deleted));
        }
        let domain = domain.unwrap_or_default().to_owned();
        Ok(Self { object, store, location: location.clone(), domain })
    }

    /// Stands for the place it comes from.
    pub(super) fn source(&self) -> Digest {
        Digest::of(format!("{}\n{}", self.domain, self.location).as_bytes())
    }

    /// Size the store promises, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.object.size as u64
    }

    /// Digest the store promises.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.object.digest.as_deref().and_then(Digest::from_object_store)
    }

    /// Its bytes.
    pub(super) async fn read(&self) -> Result<Object, GetError> {
        self.store.get(&self.object.name).await
    }
}

//! What lies in a bucket, what of it nothing uses, and its removal.

use async_nats::jetstream::object_store::InfoErrorKind;
use futures::StreamExt as _;
use nex_protocol::deploy::Location;
use nex_protocol::digest::Digest;
use nex_protocol::id::Namespace;

use super::error::{ArtifactError, store_error};
use super::key::Origin;
use crate::Client;
use crate::discover::Running;

/// An artifact in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    /// Where.
    pub location: Location,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, where the store has it.
    pub digest: Option<Digest>,
    /// When it was uploaded, milliseconds since 1970.
    pub uploaded_ms: i64,
    /// Whose it is, where its key says so.
    pub origin: Option<Origin>,
}

impl StoredArtifact {
    /// How many of these workloads run it. One of a node that does not tell what it runs may run any version of its name.
    #[must_use]
    pub fn users(&self, running: &[Running]) -> usize {
        let location = self.location.to_string();
        let uses = |running: &&Running| match &running.workload.artifact {
            Some(artifact) => *artifact == location,
            None => self.origin.as_ref().is_some_and(|own| own.workload.as_str() == running.workload.name),
        };
        running.iter().filter(uses).count()
    }
}

/// Those of a namespace that no workload runs: of each name all but the newest, and only if it was uploaded before `before_ms`,
/// milliseconds since 1970. What somebody gave a name of his own is never among them.
#[must_use]
pub fn unused<'a>(
    stored: &'a [StoredArtifact],
    namespace: &Namespace,
    running: &[Running],
    keep: usize,
    before_ms: i64,
) -> Vec<&'a StoredArtifact> {
    let newer = |one: &StoredArtifact, origin: &Origin| {
        let same = |other: &&StoredArtifact| other.origin.as_ref().is_some_and(|it| it.workload == origin.workload);
        let of_namespace = |other: &&StoredArtifact| other.origin.as_ref().is_some_and(|it| it.namespace == *namespace);
        let newer = |other: &&StoredArtifact| (other.uploaded_ms, &other.location.key) > (one.uploaded_ms, &one.location.key);
        stored.iter().filter(same).filter(of_namespace).filter(newer).count()
    };
    let is_unused = |one: &&StoredArtifact| {
        let Some(origin) = one.origin.as_ref().filter(|origin| origin.namespace == *namespace) else { return false };
        one.uploaded_ms < before_ms && one.users(running) == 0 && newer(one, origin) >= keep
    };
    stored.iter().filter(is_unused).collect()
}

impl Client {
    /// Everything in a bucket, the newest first.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn artifacts(&self, bucket: &str, domain: Option<&str>) -> Result<Vec<StoredArtifact>, ArtifactError> {
        let no_bucket = || ArtifactError::NoBucket(bucket.to_owned());
        let anywhere = Location::new(bucket, "*").ok_or_else(no_bucket)?;
        let opened = self.open_bucket(&anywhere, domain).await?.ok_or_else(no_bucket)?;
        let mut listed = opened.store.list().await.map_err(|error| store_error("list", &anywhere, error))?;
        let mut found = Vec::new();
        while let Some(info) = listed.next().await {
            let info = info.map_err(|error| store_error("list", &anywhere, error))?;
            let Some(location) = Location::new(bucket, &info.name).filter(|_| !info.deleted) else { continue };
            found.push(StoredArtifact {
                origin: Origin::of(&location.key),
                location,
                bytes: info.size as u64,
                digest: info.digest.as_deref().and_then(Digest::from_object_store),
                uploaded_ms: match info.modified {
                    Some(at) => i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
                    None => 0,
                },
            });
        }
        found.sort_by(|a, b| (b.uploaded_ms, &b.location.key).cmp(&(a.uploaded_ms, &a.location.key)));
        Ok(found)
    }

    /// Removes an artifact. What runs from it goes on: nodes keep a copy.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub async fn remove_artifact(&self, location: &Location, domain: Option<&str>) -> Result<(), ArtifactError> {
        let bucket = self.open_bucket(location, domain).await?;
        let bucket = bucket.ok_or_else(|| ArtifactError::NoBucket(location.bucket.clone()))?;
        match bucket.store.info(&location.key).await {
            Ok(info) if info.deleted => return Err(ArtifactError::NoObject(location.clone())),
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Err(ArtifactError::NoObject(location.clone())),
            Ok(_) | Err(_) => {}
        }
        bucket.store.delete(&location.key).await.map_err(|error| store_error("remove", location, error))
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::WorkloadSummary;

    use super::super::key;
    use super::*;

    fn stored(namespace: &str, name: &str, text: &str, uploaded_ms: i64) -> StoredArtifact {
        let digest = Digest::of(text.as_bytes());
        let location = key::location("B", &namespace.parse().unwrap(), &name.parse().unwrap(), &digest).unwrap();
        let origin = Origin::of(&location.key);
        StoredArtifact { location, bytes: 1, digest: Some(digest), uploaded_ms, origin }
    }

    fn running(name: &str, artifact: Option<&StoredArtifact>) -> Running {
        let artifact = artifact.map(|artifact| artifact.location.to_string());
        let workload = WorkloadSummary { name: name.to_owned(), artifact, ..WorkloadSummary::default() };
        Running { node: nkeys::KeyPair::new_server().public_key().parse().unwrap(), node_name: None, workload }
    }

    #[test]
    fn what_runs_what_is_newest_and_what_is_anothers_stays() {
        let all = [
            stored("shop", "a", "one", 1),
            stored("shop", "a", "two", 2),
            stored("shop", "a", "three", 3),
            stored("shop", "b", "one", 1),
            stored("other", "a", "zero", 0),
            StoredArtifact { origin: None, ..stored("shop", "c", "by hand", 0) },
        ];
        let [one, two, three, ..] = &all;
        let shop = "shop".parse().unwrap();
        let unused = |running: &[Running], keep, before| unused(&all, &shop, running, keep, before);
        assert_eq!(unused(&[], 1, 100), [one, two]);
        assert_eq!(unused(&[running("a", Some(one))], 1, 100), [two]);
        assert_eq!(unused(&[running("a", Some(three))], 2, 100), [one]);
        assert_eq!(unused(&[], 1, 2), [one]);
        assert_eq!(unused(&[running("a", None)], 1, 100), Vec::<&StoredArtifact>::new());
    }
}

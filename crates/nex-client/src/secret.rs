//! The secrets of an issuer, in the bucket of their namespace: set, listed, removed, and sealed to the nodes that are about to use them.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::kv::{Config, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use futures::StreamExt as _;
use nex_protocol::id::SecretName;
use nex_protocol::secret::{self, Place, Secret, SecretError};
use nkeys::KeyPair;

use crate::Client;
use crate::deploy::Target;

/// How often something is tried again that somebody else changed meanwhile.
const TRIES: u32 = 8;

/// Secrets cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// There is no such secret of this issuer.
    #[error(
        "there is no secret '{name}' of issuer {issuer} in namespace {namespace}; next: set it with `nex secret set {name}`, or see those there are with `nex secret ls`"
    )]
    Missing {
        /// Its name.
        name: SecretName,
        /// Whose it would be.
        issuer: String,
        /// In which namespace.
        namespace: String,
    },
    /// What lies there cannot be used.
    #[error("the secret '{name}' cannot be used: {why}")]
    Unusable {
        /// Its name.
        name: SecretName,
        /// Why.
        why: SecretError,
    },
    /// Others change it all the time.
    #[error("the secret '{0}' is changed by somebody else all the time; next: try again")]
    Busy(SecretName),
    /// The server or the account has no JetStream.
    #[error(
        "JetStream is off, so there is no bucket to keep secrets in; next: start nats-server with `-js`, or enable JetStream for this \
         account"
    )]
    NoJetStream(#[source] async_nats::Error),
    /// The bucket did not do it.
    #[error("cannot {what} in the bucket {bucket}; next: check that this user may use it")]
    Bucket {
        /// What was tried.
        what: &'static str,
        /// Which bucket.
        bucket: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
}

/// A secret as it lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its name.
    pub name: SecretName,
    /// Public key of whose it is.
    pub issuer: String,
    /// When it was set or sealed to a node, seconds since 1970.
    pub changed_at: i64,
    /// What it says, where it is one.
    pub secret: Result<Secret, SecretError>,
}

impl Client {
    /// Sets a secret. Nodes that could open the last version can open this one, unless that is not to be; gives their number.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn set_secret(&self, new: NewSecret<'_>, issuer: &KeyPair, domain: Option<&str>) -> Result<usize, SecretsError> {
        let NewSecret { name, value, .. } = new;
        let unusable = |why| SecretsError::Unusable { name: name.clone(), why };
        let public = issuer.public_key();
        let place = Place { namespace: self.namespace(), issuer: &public, name };
        // Before anything is made.
        Secret::new(self.namespace(), name, issuer, 1, value).map_err(unusable)?;
        let bucket = match self.open_secrets(domain).await? {
            Some(bucket) => bucket,
            None => Box::pin(self.create_secrets(new.replicas, domain)).await?,
        };
        for _ in 0..TRIES {
            let last = self.stored(&bucket, &place.key()).await?;
            let known = last.as_ref().and_then(|(record, _)| Secret::read(record.as_deref()?, place).ok());
            let after = known.as_ref().map_or(0, |secret| secret.version().saturating_add(1));
            let mut secret = Secret::new(self.namespace(), name, issuer, after.max(now_ms()), value).map_err(unusable)?;
            let nodes = known.iter().flat_map(Secret::nodes).filter(|_| !new.forget_nodes);
            for (node, xkey) in nodes {
                secret.seal_to(node, xkey, issuer).map_err(unusable)?;
            }
            let revision = last.map_or(0, |(_, revision)| revision);
            if self.put_secret((&bucket, revision), place, &secret, issuer).await? {
                return Ok(secret.nodes().count());
            }
        }
        Err(SecretsError::Busy(name.clone()))
    }

    /// All secrets of the namespace, by name.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secrets(&self, domain: Option<&str>) -> Result<Vec<StoredSecret>, SecretsError> {
        let Some(bucket) = self.open_secrets(domain).await? else { return Ok(Vec::new()) };
        let failed = |error: async_nats::Error| self.bucket_error("list secrets", error);
        let mut keys = Box::pin(bucket.keys()).await.map_err(|error| failed(error.into()))?;
        let mut found = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| failed(error.into()))?;
            let parts = key.split_once('.').and_then(|(issuer, name)| Some((issuer, name.parse::<SecretName>().ok()?)));
            let Some((issuer, name)) = parts else { continue };
            let entry = bucket.entry(&key).await.map_err(|error| failed(error.into()))?;
            let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else { continue };
            let place = Place { namespace: self.namespace(), issuer, name: &name };
            let (secret, changed_at) = (Secret::read(&entry.value, place), entry.created.unix_timestamp());
            found.push(StoredSecret { issuer: issuer.to_owned(), changed_at, secret, name });
        }
        found.sort_by(|a, b| (&a.name, &a.issuer).cmp(&(&b.name, &b.issuer)));
        Ok(found)
    }

    /// Removes a secret. What runs keeps what it was given, and does not start again.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn remove_secret(&self, name: &SecretName, issuer: &str, domain: Option<&str>) -> Result<(), SecretsError> {
        let place = Place { namespace: self.namespace(), issuer, name };
        let missing = || self.missing(name, issuer);
        let bucket = self.open_secrets(domain).await?.ok_or_else(missing)?;
        if self.stored(&bucket, &place.key()).await?.is_none_or(|(record, _)| record.is_none()) {
            return Err(missing());
        }
        bucket.purge(place.key()).await.map_err(|error| self.bucket_error("remove a secret", error.into()))
    }

    /// The version of a secret that would be used now.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_version(&self, name: &SecretName, issuer: &str, domain: Option<&str>) -> Result<u64, SecretsError> {
        let bucket = self.open_secrets(domain).await?.ok_or_else(|| self.missing(name, issuer))?;
        Ok(self.read_secret(&bucket, name, issuer).await?.0.version())
    }

    /// Seals secrets of an issuer to a node that is about to use them, where they are not yet.
    pub(crate) async fn seal_secrets_to(
        &self,
        target: &Target,
        names: BTreeSet<&SecretName>,
        issuer: &KeyPair,
        domain: Option<&str>,
    ) -> Result<(), SecretsError> {
        let public = issuer.public_key();
        let mut bucket = None;
        for name in names {
            let place = Place { namespace: self.namespace(), issuer: &public, name };
            let opened = match &bucket {
                Some(opened) => opened,
                None => bucket.insert(self.open_secrets(domain).await?.ok_or_else(|| self.missing(name, &public))?),
            };
            let mut is_done = false;
            for _ in 0..TRIES {
                let (mut secret, revision) = self.read_secret(opened, name, &public).await?;
                is_done = secret.is_for(&target.node, &target.xkey);
                if is_done {
                    break;
                }
                let sealed = secret.seal_to(&target.node, &target.xkey, issuer);
                sealed.map_err(|why| SecretsError::Unusable { name: name.clone(), why })?;
                is_done = self.put_secret((opened, revision), place, &secret, issuer).await?;
                if is_done {
                    break;
                }
            }
            if !is_done {
                return Err(SecretsError::Busy(name.clone()));
            }
        }
        Ok(())
    }

    async fn read_secret(&self, bucket: &Store, name: &SecretName, issuer: &str) -> Result<(Secret, u64), SecretsError> {
        let place = Place { namespace: self.namespace(), issuer, name };
        match self.stored(bucket, &place.key()).await? {
            Some((Some(record), revision)) => match Secret::read(&record, place) {
                Ok(secret) => Ok((secret, revision)),
                Err(why) => Err(SecretsError::Unusable { name: name.clone(), why }),
            },
            _ => Err(self.missing(name, issuer)),
        }
    }

    /// What lies under a key, and its revision; no record where there was one.
    async fn stored(&self, bucket: &Store, key: &str) -> Result<Option<(Option<bytes::Bytes>, u64)>, SecretsError> {
        let entry = bucket.entry(key).await.map_err(|error| self.bucket_error("read a secret", error.into()))?;
        Ok(entry.map(|entry| (Some(entry.value).filter(|_| entry.operation == Operation::Put), entry.revision)))
    }

    /// Whether it was put there; not where somebody else put something there first.
    async fn put_secret(
        &self,
        (bucket, revision): (&Store, u64),
        place: Place<'_>,
        secret: &Secret,
        issuer: &KeyPair,
    ) -> Result<bool, SecretsError> {
        let record = secret.sign(issuer).map_err(|why| SecretsError::Unusable { name: place.name.clone(), why })?;
        match bucket.update(place.key(), record.into(), revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(self.bucket_error("keep a secret", error.into())),
        }
    }

    fn missing(&self, name: &SecretName, issuer: &str) -> SecretsError {
        let namespace = self.namespace().to_string();
        SecretsError::Missing { name: name.clone(), issuer: issuer.to_owned(), namespace }
    }

    fn bucket_error(&self, what: &'static str, source: async_nats::Error) -> SecretsError {
        SecretsError::Bucket { what, bucket: secret::bucket(self.namespace()), source }
    }

    async fn open_secrets(&self, domain: Option<&str>) -> Result<Option<Store>, SecretsError> {
        let jetstream = self.jetstream(domain);
        match jetstream.get_stream(secret::stream(self.namespace())).await {
            Ok(_) => {}
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::STREAM_NOT_FOUND => return Ok(None),
                GetStreamErrorKind::Request => return Err(SecretsError::NoJetStream(error.into())),
                GetStreamErrorKind::JetStream(ref reason) if is_off(reason) => {
                    return Err(SecretsError::NoJetStream(error.into()));
                }
                GetStreamErrorKind::JetStream(_) | GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                    return Err(self.bucket_error("look for secrets", error.into()));
                }
            },
        }
        let opened = jetstream.get_key_value(secret::bucket(self.namespace())).await;
        Ok(Some(opened.map_err(|error| self.bucket_error("look for secrets", error.into()))?))
    }

    async fn create_secrets(&self, replicas: usize, domain: Option<&str>) -> Result<Store, SecretsError> {
        let config = Config {
            bucket: secret::bucket(self.namespace()),
            description: "Secrets of nex, sealed".to_owned(),
            history: 1,
            num_replicas: replicas,
            ..Config::default()
        };
        let created = Box::pin(self.jetstream(domain).create_key_value(config)).await;
        created.map_err(|error| self.bucket_error("make a place for secrets", error.into()))
    }
}

/// A secret to be set.
#[derive(Clone, Copy)]
pub struct NewSecret<'a> {
    /// Its name.
    pub name: &'a SecretName,
    /// Its value.
    pub value: &'a str,
    /// On how many servers the bucket is kept, where it is not there yet.
    pub replicas: usize,
    /// Whether nodes that could open the last version cannot open this one.
    pub forget_nodes: bool,
}

impl std::fmt::Debug for NewSecret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> NewSecret<'a> {
    /// With nothing optional.
    #[must_use]
    pub fn new(name: &'a SecretName, value: &'a str) -> Self {
        Self { name, value, replicas: 1, forget_nodes: false }
    }
}

fn is_off(reason: &jetstream::Error) -> bool {
    matches!(reason.error_code(), ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

//! The secrets that a workload uses: read from the bucket of its namespace each time it is started, and opened with the node's curve key.
//!
//! A workload uses those of its own issuer, whose signature is verified. Values are kept in memory as long as the workload lives: where
//! NATS is away it is started again with what it had. A version older than that is refused, for whoever can write to the bucket could put
//! one back that was rotated away.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use nex_bus::denials::Denial;
use nex_process::{Deadline, Elapsed};
use nex_protocol::envelope::chain;
use nex_protocol::id::SecretName;
use nex_protocol::seal::Environment;
use nex_protocol::secret::{self, Place, Secret, SecretError};

use crate::connections::Connections;
use crate::identity::Identity;
use crate::workload::secrets::Known;
use crate::workload::spec::WorkloadSpec;

/// Most bytes of all secrets of a workload: the environment has to fit into one message to its agent.
const MAX_BYTES: usize = 256 * 1024;
/// What a bucket writes beside the value of a key that is gone.
const OPERATION: &str = "KV-Operation";

/// Why a secret is not there for a workload.
#[derive(Debug, thiserror::Error)]
pub enum SecretFailure {
    /// There is none.
    #[error("its secret '{0}' is not there; next: nex secret set {0}")]
    Missing(SecretName),
    /// What is there cannot be used.
    #[error("its secret '{name}' cannot be used: {why}")]
    Unusable {
        /// Which.
        name: SecretName,
        /// Why.
        why: SecretError,
    },
    /// Somebody has put an old version back.
    #[error("its secret '{0}' is an older version than the one it had; next: set it again, and see who may write to its bucket")]
    Older(SecretName),
    /// More than a workload's environment can hold.
    #[error("its secrets are larger than {MAX_BYTES} bytes together; next: keep the largest in an object store")]
    TooLarge,
    /// The node may not read it.
    #[error("its secrets: on the node's NATS: {0}")]
    Denied(Denial),
    /// Nobody answers.
    #[error("its secret '{name}' cannot be read: {why}")]
    Unheard {
        /// Which.
        name: SecretName,
        /// Why.
        why: String,
    },
}

/// Reads secrets with a node's rights and opens them with its key.
#[derive(Debug)]
pub struct Secrets {
    pub(crate) nats: Client,
    pub(crate) identity: Arc<Identity>,
    pub(crate) connections: Connections,
}

impl Secrets {
    /// What the workload's variables are now.
    ///
    /// # Errors
    /// [`SecretFailure`], for the first that cannot be had.
    pub async fn resolve(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Environment, SecretFailure> {
        let mut values: BTreeMap<&SecretName, String> = BTreeMap::new();
        let (mut environment, mut bytes) = (Environment::new(), 0);
        for (variable, name) in spec.secrets.variables() {
            let value = match values.get(name) {
                Some(value) => value.clone(),
                None => values.entry(name).or_insert(Box::pin(self.value(spec, name, by)).await?).clone(),
            };
            bytes += value.len();
            if bytes > MAX_BYTES {
                return Err(SecretFailure::TooLarge);
            }
            environment.insert(variable.clone(), value);
        }
        Ok(environment)
    }

    /// Whether a secret for which something is done about the workload is another version than the one that it was started with, which this
    /// node can open; not known of one that a process of an older version started.
    ///
    /// # Errors
    /// [`SecretFailure`], for the first that cannot be had: what runs keeps what it has then.
    pub async fn has_changed(&self, spec: &WorkloadSpec, by: Deadline) -> Result<Option<bool>, SecretFailure> {
        let (mut changed, mut is_known) = (spec.secrets.is_owed(), true);
        for name in spec.followed_secrets() {
            let place = Place { namespace: &spec.namespace, issuer: &spec.claims.iss, name };
            let record = Box::pin(self.record(spec, place, by)).await?;
            let unusable = |why| SecretFailure::Unusable { name: name.clone(), why };
            let secret = Secret::read(&record, place).map_err(unusable)?;
            let known = spec.secrets.known(name);
            is_known &= known.is_some();
            if known.is_some_and(|known| secret.version() > known.version) {
                secret.open(&self.identity.node, &self.identity.xkey).map_err(unusable)?;
                changed = true;
            }
        }
        Ok(if changed { Some(true) } else { is_known.then_some(false) })
    }

    async fn value(&self, spec: &WorkloadSpec, name: &SecretName, by: Deadline) -> Result<String, SecretFailure> {
        let place = Place { namespace: &spec.namespace, issuer: &spec.claims.iss, name };
        let known = spec.secrets.known(name);
        let record = match (Box::pin(self.record(spec, place, by)).await, &known) {
            (Ok(record), _) => record,
            (Err(SecretFailure::Unheard { why, .. }), Some(Known { value: Some(value), .. })) => {
                tracing::warn!(workload_id = %spec.id, secret = %name, why, "a secret cannot be read; the workload gets the version it had");
                return Ok(value.clone());
            }
            (Err(failure), _) => return Err(failure),
        };
        let unusable = |why| SecretFailure::Unusable { name: name.clone(), why };
        let secret = Secret::read(&record, place).map_err(unusable)?;
        if known.is_some_and(|known| secret.version() < known.version) {
            return Err(SecretFailure::Older(name.clone()));
        }
        let value = secret.open(&self.identity.node, &self.identity.xkey).map_err(unusable)?;
        spec.secrets.learn(name, Known { version: secret.version(), value: Some(value.clone()) });
        Ok(value)
    }

    /// What lies in the bucket: one question, for which one permission is enough.
    async fn record(&self, spec: &WorkloadSpec, place: Place<'_>, by: Deadline) -> Result<Bytes, SecretFailure> {
        let unheard = |why: String| SecretFailure::Unheard { name: place.name.clone(), why };
        let context = match spec.request.jsdomain.as_deref().filter(|domain| !domain.is_empty()) {
            Some(domain) => jetstream::with_domain(self.nats.clone(), domain),
            None => jetstream::new(self.nats.clone()),
        };
        let stream = secret::stream(place.namespace);
        let handle = context.get_stream_no_info(&stream).await.map_err(|error| unheard(chain(&error)))?;
        let ask = async {
            match by.bound(handle.direct_get_last_for_subject(place.subject())).await {
                Err(Elapsed) => Err(unheard("no answer in time".to_owned())),
                Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => Err(SecretFailure::Missing(place.name.clone())),
                Ok(Err(error)) => Err(unheard(chain(&error))),
                Ok(Ok(message)) if message.headers.get(OPERATION).is_some() => Err(SecretFailure::Missing(place.name.clone())),
                Ok(Ok(message)) => Ok(message.payload),
            }
        };
        self.connections.permitted_on(&stream, ask, SecretFailure::Denied).await
    }
}

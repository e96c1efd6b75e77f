//! Start a workload on a node and stop it again: signed claims, a sealed environment, one request.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nex_protocol::claims::{self, Claims};
use nex_protocol::deploy::{
    ConnectionDetails, DeployRequest, DeployResponse, Isolation, RequestedLimits, RequestedPlacement, RunPolicy, StopRequest,
    StopResponse, WorkloadType, request_digest,
};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::kind;
use nex_protocol::id::{Namespace, NodeId, SecretName, WorkloadId, WorkloadName};
use nex_protocol::seal::{self, Binding, Environment, SealError};
use nex_protocol::subject;
use nex_protocol::trigger::{DurableTrigger, HttpRoute};
use nkeys::{KeyPair, XKey};

use crate::Client;
use crate::artifact::Artifact;
use crate::request::{Question, RequestError};
use crate::secret::SecretsError;

/// How long the claims of a deploy are good for: the request is answered long before.
const CLAIMS_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How often a deploy is asked for within its timeout.
const TRIES: u32 = 3;
/// Pause before a node that has gone is asked again.
const RESTART: Duration = Duration::from_millis(250);

/// Who deploys: the key that signs, and the curve key that seals. Only this issuer may stop what it started.
#[derive(Clone)]
pub struct Keys {
    /// Signs the claims; an account key as a rule.
    pub issuer: KeyPair,
    /// Seals the environment.
    pub sender: XKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer.public_key()).finish_non_exhaustive()
    }
}

/// What to run, and how. [`Deployment::new`] fills what must be said; the rest is optional.
#[derive(Clone)]
pub struct Deployment {
    /// Name of the workload.
    pub name: WorkloadName,
    /// Its type.
    pub r#type: WorkloadType,
    /// Its artifact, from [`Client::upload`] or [`Client::locate`].
    pub artifact: Artifact,
    /// For people.
    pub description: String,
    /// Arguments.
    pub argv: Vec<String>,
    /// Environment; only the node can read it.
    pub environment: Environment,
    /// Variables whose values are secrets of the issuer, by name; only the node can open them.
    pub secrets: BTreeMap<String, SecretName>,
    /// Whether to restart it when it fails.
    pub essential: bool,
    /// Subjects that call the function.
    pub triggers: Vec<String>,
    /// HTTP requests that call it. Nodes of 0.2.7 take no notice of them.
    pub http: Vec<HttpRoute>,
    /// Streams that call it; their messages are kept until it has dealt with them. Nodes of 0.2.7 take no notice of them.
    pub durable: Vec<DurableTrigger>,
    /// Where those subjects are subscribed, if not on the node's own connection.
    pub trigger_connection: Option<ConnectionDetails>,
    /// The connection of its host services.
    pub host_services: Option<ConnectionDetails>,
    /// Bounds; the node's own cap them.
    pub limits: RequestedLimits,
    /// Class of the machine it runs on; the node's standard machine if absent.
    pub machine_class: Option<String>,
    /// How far it is kept apart from others; as its node does it if absent. Nodes of 0.2.7 take no notice of it.
    pub isolation: Option<Isolation>,
    /// How long it has to run before it counts as started; at once if absent. Nodes of 0.2.7 take no notice of it.
    pub settle: Option<Duration>,
    /// By what to tell this version from others among what runs. Nodes of 0.2.7 take no notice of it.
    pub revision: Option<String>,
    /// How a service is kept; as [`Deployment::essential`] says if absent. Nodes of 0.2.7 take no notice of it.
    pub policy: Option<RunPolicy>,
    /// By what its nodes are chosen. Nodes only repeat it; those of 0.2.7 do not.
    pub placement: RequestedPlacement,
    /// The copy of the issuer's on the same node that is to be stopped when this one runs: where quotas have no room for both, the node
    /// stops it. Nodes of 0.2.7 take no notice of it.
    pub replaces: Option<WorkloadId>,
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment")
            .field("name", &self.name)
            .field("type", &self.r#type)
            .field("artifact", &self.artifact)
            .field("triggers", &self.triggers)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl Deployment {
    /// A deployment with nothing optional. A function gets its name as its trigger, so that it can be called at all.
    #[must_use]
    pub fn new(name: WorkloadName, r#type: WorkloadType, artifact: Artifact) -> Self {
        let triggers = if r#type.is_function() { vec![name.to_string()] } else { Vec::new() };
        Self {
            name,
            r#type,
            artifact,
            description: String::new(),
            argv: Vec::new(),
            environment: Environment::new(),
            secrets: BTreeMap::new(),
            essential: false,
            triggers,
            http: Vec::new(),
            durable: Vec::new(),
            trigger_connection: None,
            host_services: None,
            limits: RequestedLimits::default(),
            machine_class: None,
            isolation: None,
            settle: None,
            revision: None,
            policy: None,
            placement: RequestedPlacement::default(),
            replaces: None,
        }
    }

    /// The request as it is sent: the environment names the token, and the token the digest of all the rest.
    pub(crate) fn request(
        &self,
        target: &Target,
        (namespace, domain): (&Namespace, Option<String>),
        keys: &Keys,
    ) -> Result<Vec<u8>, DeployError> {
        let lifetime = i64::try_from(CLAIMS_LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims::to_start(self.name.as_str(), &keys.issuer, &self.artifact.digest, now(), lifetime);
        let artifact_domain = domain.filter(|_| self.artifact.jetstream_domain.is_none());
        let mut request = DeployRequest { artifact_domain, ..self.unsigned(target, keys, &claims)? };
        let unsigned = serde_json::to_vec(&request).unwrap_or_default();
        // What was written here is an object.
        let digest = request_digest(&unsigned).unwrap_or_else(|_never| Digest::of(&unsigned));
        let claims = claims.bound_to_request(&target.node, namespace, digest);
        request.workload_jwt = Some(claims::sign(&claims, &keys.issuer).map_err(DeployError::Sign)?);
        Ok(serde_json::to_vec(&request).unwrap_or_default())
    }

    /// The triggers that are more than a subject, as texts.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let http = self.http.iter().map(ToString::to_string);
        http.chain(self.durable.iter().map(ToString::to_string)).collect()
    }

    /// Longest time until its health check passes for the first time.
    fn time_to_pass(&self) -> Duration {
        let checked = self.policy.as_ref().and_then(|policy| policy.check().ok());
        checked.and_then(|policy| policy.health).map_or(Duration::ZERO, |health| health.start_time())
    }

    fn unsigned(&self, target: &Target, keys: &Keys, claims: &Claims) -> Result<DeployRequest, DeployError> {
        let binding = Binding { issuer: claims.iss.clone(), token: claims.jti.clone() };
        let environment = binding.put(self.environment.clone());
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        Ok(DeployRequest {
            argv: some(&self.argv),
            description: Some(self.description.clone()),
            r#type: Some(self.r#type.to_string()),
            location: Some(self.artifact.location.clone()),
            essential: Some(self.essential),
            workload_jwt: None,
            environment: Some(seal::seal(&environment, &keys.sender, &target.xkey).map_err(DeployError::Seal)?),
            jsdomain: Some(self.artifact.jetstream_domain.clone().unwrap_or_default()),
            artifact_domain: None,
            sender_public_key: Some(keys.sender.public_key()),
            target_node: Some(target.node.to_string()),
            trigger_subjects: some(&self.triggers),
            triggers: some(&self.kinds()),
            trigger_connection: self.trigger_connection.clone(),
            host_services: self.host_services.clone(),
            limits: (self.limits != RequestedLimits::default()).then_some(self.limits),
            machine_class: self.machine_class.clone(),
            isolation: self.isolation.map(|isolation| isolation.to_string()),
            settle_ms: self.settle.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            revision: self.revision.clone(),
            policy: self.policy.clone(),
            secrets: (!self.secrets.is_empty())
                .then(|| self.secrets.iter().map(|(variable, name)| (variable.clone(), name.to_string())).collect()),
            placement: (self.placement != RequestedPlacement::default()).then(|| self.placement.clone()),
            replaces: self.replaces.as_ref().map(ToString::to_string),
        })
    }
}

/// The node to deploy to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub node: NodeId,
    /// The key to seal environments to.
    pub xkey: String,
    /// Whether the node has signed that this key is its own; nodes of 0.2.7 do not, and then it may be anybody's.
    pub is_signed: bool,
}

impl Target {
    /// A node and what it says of its key: `target_xkey` of a bid, `public_xkey` of an INFO answer, and `xkey_signature` of either.
    ///
    /// # Errors
    /// [`ForeignKey`] when there is a signature and it is not the node's.
    pub fn new(node: NodeId, xkey: String, signature: &str) -> Result<Self, ForeignKey> {
        let is_signed = !signature.is_empty();
        if is_signed && !seal::is_xkey_of(&node, &xkey, signature) {
            return Err(ForeignKey(node));
        }
        Ok(Self { node, xkey, is_signed })
    }
}

/// An answer in a node's name with a key that is not that node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an answer in the name of node {0} has a key that this node has not signed; next: find out who else answers on this NATS"
)]
pub struct ForeignKey(NodeId);

/// A workload was not started.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node did not do it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The environment could not be sealed to the node.
    #[error("cannot seal the environment to the node")]
    Seal(#[source] SealError),
    /// The environment would be sealed to a key that may be anybody's.
    #[error(
        "node {0} does not sign its key, so that anybody may have answered in its name; the environment is not sent; next: update the \
         node, or trust it with --unsigned-node"
    )]
    Unsigned(NodeId),
    /// Its secrets cannot be sealed to the node.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The node knows nothing of secrets.
    #[error(
        "node {0} does not sign its key, so that it is one of Nex 0.2.7, which knows no secrets; next: update the node, or give the values \
         with --env-file"
    )]
    NoSecrets(NodeId),
    /// The claims could not be signed.
    #[error("cannot sign the claims; next: give an issuer file that holds a seed (S…)")]
    Sign(#[source] nkeys::error::Error),
    /// The node answered, and did not start it.
    #[error("node {0} did not start the workload and does not say why; next: read the node's own log")]
    NotStarted(NodeId),
}

/// A workload was not stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The node did not do it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The claims could not be signed.
    #[error("cannot sign the claims; next: give an issuer file that holds a seed (S…)")]
    Sign(#[source] nkeys::error::Error),
    /// The node answered, and did not stop it.
    #[error("node {0} did not stop the workload and does not say why; next: read the node's own log")]
    NotStopped(NodeId),
}

impl Client {
    /// Starts a workload; it runs when this returns, unless it has an exit code: it has done its work then.
    ///
    /// # Errors
    /// [`DeployError`]
    pub async fn deploy(&self, deployment: &Deployment, target: &Target, keys: &Keys) -> Result<DeployResponse, DeployError> {
        let node = &target.node;
        if !target.is_signed && !deployment.environment.is_empty() && !self.trusts_unsigned_nodes {
            return Err(DeployError::Unsigned(node.clone()));
        }
        if !target.is_signed && deployment.environment.contains_key(seal::NATS_CREDS) {
            return Err(DeployError::NoSecrets(node.clone()));
        }
        if !deployment.secrets.is_empty() {
            if !target.is_signed {
                return Err(DeployError::NoSecrets(node.clone()));
            }
            let (names, domain) = (deployment.secrets.values().collect(), deployment.artifact.jetstream_domain.as_deref());
            Box::pin(self.seal_secrets_to(target, names, &keys.issuer, domain)).await?;
        }
        let body = deployment.request(target, (&self.namespace, self.nats.server_info().domain), keys)?;
        let patience = deployment.r#type.preparation() + deployment.settle.unwrap_or_default() + deployment.time_to_pass();
        let timeout = self.deploy_timeout + patience;
        let answer = match target.is_signed {
            true => self.ask_again(node, body, timeout).await?,
            // A node of 0.2.7 would start another one.
            false => self.ask_deploy(node, body, timeout).await?,
        };
        if answer.started { Ok(answer) } else { Err(DeployError::NotStarted(node.clone())) }
    }

    /// Sends the same request again when no answer comes: the node has started it once by then, or has not heard of it.
    async fn ask_again(&self, node: &NodeId, body: Vec<u8>, timeout: Duration) -> Result<DeployResponse, RequestError> {
        let end = Instant::now() + timeout;
        let each = timeout / TRIES;
        let mut is_first = true;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.ask_deploy(node, body.clone(), each.min(left)).await {
                Err(RequestError::TimedOut { .. }) if left > each => {}
                Err(RequestError::TimedOut { verb, node, .. }) => {
                    return Err(RequestError::TimedOut { verb, node, waited: timeout });
                }
                // It is being started again.
                Err(RequestError::NotThere { .. }) if !is_first && left > RESTART => tokio::time::sleep(RESTART).await,
                other => return other,
            }
            is_first = false;
        }
    }

    async fn ask_deploy(&self, node: &NodeId, body: Vec<u8>, timeout: Duration) -> Result<DeployResponse, RequestError> {
        let subject = subject::deploy(&self.namespace, node);
        self.ask(Question { verb: "DEPLOY", node, subject, body, expected: kind::RUN, timeout }).await
    }

    /// Stops a workload that the issuer started.
    ///
    /// # Errors
    /// [`StopError`]
    pub async fn stop(
        &self,
        node: &NodeId,
        id: &WorkloadId,
        name: &WorkloadName,
        issuer: &KeyPair,
    ) -> Result<StopResponse, StopError> {
        let claims = Claims::to_stop(name.as_str(), issuer, now()).bound_to_workload(node, &self.namespace, id);
        let request = StopRequest {
            workload_id: Some(id.to_string()),
            workload_jwt: Some(claims::sign(&claims, issuer).map_err(StopError::Sign)?),
            target_node: Some(node.to_string()),
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let subject = subject::stop(&self.namespace, node);
        // Stopping takes as long as the workload's last lines.
        let (expected, timeout) = (kind::STOP, self.deploy_timeout);
        let answer: StopResponse = self.ask(Question { verb: "STOP", node, subject, body, expected, timeout }).await?;
        if answer.stopped { Ok(answer) } else { Err(StopError::NotStopped(node.clone())) }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

//! Why a request is refused. What the wire says of each is in [`crate::control`].

use nex_protocol::claims::ClaimsError;
use nex_protocol::deploy::{InvalidPolicy, Location, MAX_REVISION, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::seal::SealError;

use super::trigger_refusal::TriggerRefusal;
use crate::config::IsolationRefusal;

/// Why a deploy is refused.
#[derive(Debug, thiserror::Error)]
pub enum DeployRefusal {
    /// It is not a JSON object.
    #[error("Unable to deserialize deploy request: {0}")]
    Body(serde_json::Error),
    /// This node does not run such workloads.
    #[error("Unsupported workload type on this node: {0}")]
    UnsupportedType(String),
    /// A service subscribes its subjects itself.
    #[error(
        "Unsupported workload type for trigger subject registration: {0}; next: have it subscribe its subjects itself, or use triggers that \
         keep their messages (stream, kv, object, every, cron, at)"
    )]
    TriggersOfAService(WorkloadType),
    /// A job runs to its end, and is not called.
    #[error("Invalid deploy request: a job has no triggers; next: deploy it as a service, or leave its triggers out")]
    TriggersOfAJob,
    /// A function that nobody can call.
    #[error("Invalid deploy request: at least one trigger subject is required for this workload type")]
    NoTriggers,
    /// Too many of something.
    #[error("Invalid deploy request: more than {most} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A trigger that is no subject.
    #[error("Invalid deploy request: '{0}' is not a subject")]
    NotASubject(String),
    /// A trigger that is reserved, or that the operator denies to all.
    #[error("The trigger subject {0} overlaps with subject(s) in this node's deny list; next: choose another subject")]
    DeniedTrigger(String),
    /// A trigger that the operator did not give to this namespace.
    #[error(
        "Invalid deploy request: the trigger subject {0} is not among those allowed to this namespace; next: choose another subject, or ask the node's operator (allow_trigger_subjects)"
    )]
    TriggerNotAllowed(String),
    /// A trigger that is kept until it is dealt with.
    #[error(transparent)]
    Trigger(#[from] TriggerRefusal),
    /// The environment.
    #[error("Failed to decrypt environment for deploy request: {0}")]
    Environment(#[from] EnvironmentError),
    /// The environment is that of another deploy.
    #[error("Failed to decrypt environment for deploy request: it was sealed for another deploy")]
    EnvironmentOfAnother,
    /// There is no token.
    #[error("Invalid deploy request: could not decode workload JWT: there is none")]
    NoToken,
    /// What is there is no token.
    #[error("Invalid deploy request: could not decode workload JWT: {0}")]
    Token(ClaimsError),
    /// Its name cannot be one.
    #[error("Invalid deploy request: workload name claim ('{0}') does not match requirements (^[a-zA-Z0-9_-]+$)")]
    Name(String),
    /// It is too old or too new.
    #[error("Invalid deploy request: standard claims within JWT are not valid: {0}")]
    Times(ClaimsError),
    /// It has no expiry and is old.
    #[error(
        "Invalid deploy request: standard claims within JWT are not valid: it has no expiry and is more than an hour old; sign a new one"
    )]
    TokenTooOld,
    /// It expires too late.
    #[error(
        "Invalid deploy request: standard claims within JWT are not valid: it lives longer than a week; sign one with a nearer expiry"
    )]
    TokenLivesTooLong,
    /// It has no id, so it could be used again and again.
    #[error("Invalid deploy request: standard claims within JWT are not valid: it has no id (jti)")]
    NoTokenId,
    /// It was signed for somewhere else.
    #[error("Invalid deploy request: this workload JWT cannot be used: {0}")]
    Place(ClaimsError),
    /// It was signed to stop a workload.
    #[error("Invalid deploy request: this workload JWT stops a workload and starts none")]
    TokenStops,
    /// It was signed for other contents.
    #[error("Invalid deploy request: it is not the one that its workload JWT was signed for; it was changed after signing")]
    RequestChanged,
    /// The artifact is another one.
    #[error(
        "Invalid deploy request: the artifact's SHA-256 is {actual}, its issuer signed {signed}; it was changed after signing"
    )]
    ArtifactChanged {
        /// The digest in the claims.
        signed: Digest,
        /// That of the artifact.
        actual: Digest,
    },
    /// The operator does not list the issuer.
    #[error(
        "invalid workload issuer: {0}; next: have it listed on the node's host with `nex issuer add {0}`, or in valid_issuers"
    )]
    Issuer(String),
    /// There is nothing to run.
    #[error("Invalid deploy request: it names no artifact location")]
    NoLocation,
    /// There is nothing in it.
    #[error("Invalid deploy request: the artifact {0} is empty")]
    EmptyArtifact(Location),
    /// Not a token of a subject.
    #[error("Invalid deploy request: '{0}' is not a JetStream domain")]
    Domain(String),
    /// More memory than the operator allows, or none.
    #[error(
        "Invalid deploy request: a workload on this node may have 1 to {0} MiB of memory; ask for less, or raise workload_limits.max_memory_mib"
    )]
    Memory(u64),
    /// Longer calls than the operator allows, or none.
    #[error(
        "Invalid deploy request: a call on this node may take 1 to {0} ms; ask for less, or raise workload_limits.max_call_timeout_ms"
    )]
    CallTimeout(u64),
    /// More of something than the operator allows, or none.
    #[error(
        "Invalid deploy request: {name} of a workload on this node may be 1 to {most}; ask for less, or raise workload_limits.{name}"
    )]
    Limit {
        /// Of what.
        name: &'static str,
        /// The most.
        most: u64,
    },
    /// No such machines.
    #[error(
        "Invalid deploy request: this node has no machine class '{name}'; it has: {known}; next: ask for one of those, or leave it out"
    )]
    MachineClass {
        /// The one asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// It cannot be kept apart as it asks.
    #[error("Invalid deploy request: {0}")]
    Isolation(#[from] IsolationRefusal),
    /// Its revision is no name of one.
    #[error("Invalid deploy request: its revision is not 1 to {MAX_REVISION} letters, digits and punctuation of ASCII")]
    Revision,
    /// A secret for a variable that cannot be one, or is one already.
    #[error("Invalid deploy request: its secret for the variable '{0}', which cannot be one or has a value already")]
    SecretVariable(String),
    /// A secret that cannot be one.
    #[error("Invalid deploy request: '{0}' is no name of a secret")]
    SecretName(String),
    /// How it is to be kept cannot be.
    #[error("Invalid deploy request: {0}")]
    Policy(InvalidPolicy),
    /// A function is called, and the node keeps it.
    #[error(
        "Invalid deploy request: a {0} function has no policy: it is called, and started again whenever it is lost; leave restart, stop, health and job out"
    )]
    PolicyOfAFunction(WorkloadType),
    /// The operator demands a digest.
    #[error(
        "Invalid deploy request: this node demands claims with the artifact's SHA-256 as hash; deploy with a client that signs it"
    )]
    DigestDemanded,
    /// The operator demands claims for one request.
    #[error(
        "Invalid deploy request: this node demands claims that name it, the namespace and the request; deploy with a client that signs these"
    )]
    BoundClaimsDemanded,
    /// The operator demands environments for one deploy.
    #[error(
        "Invalid deploy request: this node demands environments that name their issuer and token; deploy with a client that seals these"
    )]
    BoundEnvironmentDemanded,
}

/// Why an environment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Half of what opens it is missing.
    #[error("the request does not say who sealed it")]
    NoSender,
    /// It does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A process cannot have it.
    #[error("a variable's name is empty or contains '='")]
    Name,
    /// A process cannot have it.
    #[error("a variable's value contains a NUL byte")]
    Value,
}

/// Why a workload is not stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopRefusal {
    /// There is none of this id in this namespace.
    #[error("No such workload")]
    NotFound,
    /// What is there is no token.
    #[error("Invalid stop request: could not decode workload JWT: {0}")]
    Token(ClaimsError),
    /// It is too old, too new, or was signed for somewhere else.
    #[error("Invalid stop request: {0}")]
    Claims(ClaimsError),
    /// It was signed to start one.
    #[error(
        "Invalid stop request: stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons"
    )]
    StartClaims,
    /// It names another name.
    #[error("Invalid stop request: stop claims subject does not match original start claims subject")]
    Subject,
    /// Somebody else signed it.
    #[error("Invalid stop request: the only entity allowed to terminate a workload is the issuer that originally started it")]
    Issuer,
    /// It names another id.
    #[error("Invalid stop request: its claims are for another workload")]
    OtherWorkload,
    /// It names an id and could be used elsewhere, or for ever.
    #[error("Invalid stop request: claims that name a workload also name the node, the namespace and when they expire")]
    Unbound,
    /// The operator demands claims for one workload.
    #[error(
        "Invalid stop request: this node demands claims that name it, the namespace and the workload; use a client that signs these"
    )]
    BoundClaimsDemanded,
    /// It was signed for an earlier workload of this name.
    #[error("Invalid stop request: its claims are older than the workload; sign new ones")]
    OlderThanTheWorkload,
    /// It was signed long ago.
    #[error("Invalid stop request: its claims are more than an hour old; sign new ones")]
    TooOld,
}

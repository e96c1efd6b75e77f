//! May this be deployed here, by this issuer, with these triggers?

use std::collections::BTreeMap;

use nex_protocol::agent;
use nex_protocol::claims::{Claims, Place};
use nex_protocol::deploy::{
    CheckedPolicy, DeployRequest, Isolation, Location, MAX_PLACES, WorkloadType, is_revision, request_digest,
};
use nex_protocol::digest::Digest;
use nex_protocol::id::{Namespace, SecretName, WorkloadName};
use nex_protocol::seal::{self, Binding, Environment};
use nex_protocol::secret;
use nex_protocol::subject;
use nkeys::XKey;

use super::limits::limits;
use super::refusal::{DeployRefusal, EnvironmentError};
use super::triggers::{self, Triggers};
use crate::config::NodeConfig;

/// A token without an expiry (0.2.7 sends none) is taken this long after it was made; its id is remembered as long.
pub(super) const TOKEN_LIFE: i64 = 3_600;
/// Tokens that promise to live longer than this are refused, so that the memory of spent ones stays small.
const MAX_TOKEN_LIFE: i64 = 7 * 24 * 3_600;
/// Most arguments.
const MAX_ITEMS: usize = 256;
/// Longest name of a variable whose value is a secret.
const MAX_VARIABLE: usize = 256;

/// What is known of a deploy after the checks, before a byte is fetched.
pub struct Admitted {
    /// Its name.
    pub name: WorkloadName,
    /// Its type.
    pub kind: WorkloadType,
    /// Its artifact.
    pub location: Location,
    /// Its claims, signature and times verified.
    pub claims: Claims,
    /// Until when the token's id must be remembered, seconds since 1970.
    pub spent_until: i64,
    /// The digest the issuer signed, if it is one.
    pub signed_digest: Option<Digest>,
    /// Its environment, opened.
    pub environment: Environment,
    /// Variables that are secrets, by name.
    pub secrets: BTreeMap<String, SecretName>,
    /// Whether that was sealed for this very deploy; true where there is none.
    pub environment_is_bound: bool,
    /// Its triggers.
    pub triggers: Triggers,
    /// Its bounds.
    pub limits: agent::Limits,
    /// How it is kept.
    pub policy: CheckedPolicy,
    /// How far it is kept apart.
    pub isolation: Isolation,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Checks a deploy request. Pure but for the key.
///
/// # Errors
/// The first check that fails, in the words of 0.2.7 where it has the same check.
pub fn admit(
    request: &DeployRequest,
    namespace: &Namespace,
    config: &NodeConfig,
    xkey: &XKey,
    now: i64,
) -> Result<Admitted, DeployRefusal> {
    let kind = kind(request, config)?;
    let triggers = triggers::read(request, kind, namespace, &config.deny_triggers)?;
    let mut environment = environment(request, xkey)?;
    let (name, claims) = claims(request, now)?;
    let environment_is_bound = request.environment.as_deref().is_none_or(str::is_empty) || bound(&mut environment, &claims)?;
    if !config.valid_issuers.is_empty() && !config.valid_issuers.contains(&claims.iss) {
        return Err(DeployRefusal::Issuer(claims.iss));
    }
    let spent_until = token_life(&claims, now)?;
    let signed_digest = claims.nats.hash.as_deref().and_then(|hash| hash.parse().ok());
    let location = request.location.clone().ok_or(DeployRefusal::NoLocation)?;
    domain(request.jsdomain.as_deref().unwrap_or_default())?;
    if request.argv.as_ref().is_some_and(|argv| argv.len() > MAX_ITEMS) {
        return Err(DeployRefusal::TooMany { what: "arguments", most: MAX_ITEMS });
    }
    let limits = limits(request, &config.workload_limits)?;
    machine_class(request, config)?;
    if request.revision.as_deref().is_some_and(|revision| !is_revision(revision)) {
        return Err(DeployRefusal::Revision);
    }
    if request.placement.as_ref().is_some_and(|placement| !placement.is_bounded()) {
        return Err(DeployRefusal::TooMany { what: "nodes or tags", most: MAX_PLACES });
    }
    let policy = policy(request, kind)?;
    let (asked, has_class) = (request.isolation.as_deref(), request.machine_class.is_some());
    let isolation = config.isolation.of(asked, namespace.as_str(), kind, has_class)?;
    Ok(Admitted {
        name,
        kind,
        location,
        claims,
        spent_until,
        signed_digest,
        secrets: secrets(request, &environment)?,
        environment,
        environment_is_bound,
        triggers,
        limits,
        policy,
        isolation,
    })
}

/// Is what was signed this request, on this node, in this namespace; and is all signed that the node demands? Only for new deploys: a
/// workload that was taken once is started again whatever is demanded since.
///
/// # Errors
/// The first that is not so.
pub fn check_signed(admitted: &Admitted, body: &[u8], place: Place<'_>, config: &NodeConfig) -> Result<(), DeployRefusal> {
    let claims = &admitted.claims;
    claims.check_place(place).map_err(DeployRefusal::Place)?;
    if claims.nats.workload.is_some() {
        return Err(DeployRefusal::TokenStops);
    }
    let digest = request_digest(body).map_err(DeployRefusal::Body)?;
    if claims.nats.request.is_some_and(|signed| signed != digest) {
        return Err(DeployRefusal::RequestChanged);
    }
    if config.demands.digest && admitted.signed_digest.is_none() {
        return Err(DeployRefusal::DigestDemanded);
    }
    if config.demands.bound_claims && (!claims.is_bound_to_a_place() || claims.nats.request.is_none()) {
        return Err(DeployRefusal::BoundClaimsDemanded);
    }
    if config.demands.bound_environment && !admitted.environment_is_bound {
        return Err(DeployRefusal::BoundEnvironmentDemanded);
    }
    triggers::check_allowed(&admitted.triggers, place.namespace, config)
}

fn policy(request: &DeployRequest, kind: WorkloadType) -> Result<CheckedPolicy, DeployRefusal> {
    match &request.policy {
        Some(policy) if kind.is_function() && !policy.is_empty() => Err(DeployRefusal::PolicyOfAFunction(kind)),
        Some(policy) => policy.check().map_err(DeployRefusal::Policy),
        None => Ok(CheckedPolicy::default()),
    }
}

/// Whether an environment says for which deploy it was sealed; it has to be this one then.
fn bound(environment: &mut Environment, claims: &Claims) -> Result<bool, DeployRefusal> {
    match Binding::take(environment) {
        None => Ok(false),
        Some(binding) if binding.issuer == claims.iss && binding.token == claims.jti => Ok(true),
        Some(_) => Err(DeployRefusal::EnvironmentOfAnother),
    }
}

fn machine_class(request: &DeployRequest, config: &NodeConfig) -> Result<(), DeployRefusal> {
    let classes = &config.microvm.classes;
    match &request.machine_class {
        Some(name) if !classes.contains_key(name) => {
            let known: Vec<&str> = classes.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(DeployRefusal::MachineClass { name: shown(name, 40), known })
        }
        _ => Ok(()),
    }
}

fn kind(request: &DeployRequest, config: &NodeConfig) -> Result<WorkloadType, DeployRefusal> {
    let text = request.r#type.as_deref().unwrap_or(WorkloadType::Native.as_str());
    let unsupported = || DeployRefusal::UnsupportedType(shown(text, 40));
    let kind: WorkloadType = text.parse().map_err(|_unknown| unsupported())?;
    if config.workload_types.contains(&kind) { Ok(kind) } else { Err(unsupported()) }
}

/// The domain becomes a token of a subject on the node's own connection: one too long would have the server cut that.
fn domain(domain: &str) -> Result<(), DeployRefusal> {
    let is_token = domain.len() <= 128 && !domain.contains(['.', '*', '>']) && subject::is_valid_pattern(domain);
    if domain.is_empty() || is_token {
        return Ok(());
    }
    Err(DeployRefusal::Domain(shown(domain, 40)))
}

/// The beginning of what somebody sent, for a message.
fn shown(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn environment(request: &DeployRequest, xkey: &XKey) -> Result<Environment, EnvironmentError> {
    let sealed = request.environment.as_deref().unwrap_or_default();
    if sealed.is_empty() {
        return Ok(Environment::new());
    }
    let sender = request.sender_public_key.as_deref().ok_or(EnvironmentError::NoSender)?;
    let environment = seal::open(sealed, xkey, sender)?;
    match environment.keys().find(|key| key.is_empty() || key.contains(['=', '\0'])) {
        Some(_) => Err(EnvironmentError::Name),
        None if environment.values().any(|value| value.contains('\0')) => Err(EnvironmentError::Value),
        None => Ok(environment),
    }
}

/// Names only: what they stand for is read when the workload is started.
fn secrets(request: &DeployRequest, environment: &Environment) -> Result<BTreeMap<String, SecretName>, DeployRefusal> {
    let Some(wanted) = &request.secrets else { return Ok(BTreeMap::new()) };
    if wanted.len() > secret::MAX_OF_A_WORKLOAD {
        return Err(DeployRefusal::TooMany { what: "secrets", most: secret::MAX_OF_A_WORKLOAD });
    }
    let mut secrets = BTreeMap::new();
    for (variable, name) in wanted {
        let is_variable = (1..=MAX_VARIABLE).contains(&variable.len()) && !variable.contains(['=', '\0']);
        if !is_variable || environment.contains_key(variable) {
            return Err(DeployRefusal::SecretVariable(shown(variable, 40)));
        }
        let name = name.parse().map_err(|_invalid| DeployRefusal::SecretName(shown(name, 40)))?;
        secrets.insert(variable.clone(), name);
    }
    Ok(secrets)
}

fn claims(request: &DeployRequest, now: i64) -> Result<(WorkloadName, Claims), DeployRefusal> {
    let token = request.workload_jwt.as_deref().ok_or(DeployRefusal::NoToken)?;
    let claims = Claims::decode(token).map_err(DeployRefusal::Token)?;
    let name: WorkloadName = claims.sub.parse().map_err(|_invalid| DeployRefusal::Name(shown(&claims.sub, 80)))?;
    claims.check_times(now).map_err(DeployRefusal::Times)?;
    Ok((name, claims))
}

fn token_life(claims: &Claims, now: i64) -> Result<i64, DeployRefusal> {
    let until = claims.exp.unwrap_or_else(|| claims.iat.saturating_add(TOKEN_LIFE));
    if until <= now {
        return Err(DeployRefusal::TokenTooOld);
    }
    if until > now.saturating_add(MAX_TOKEN_LIFE) {
        return Err(DeployRefusal::TokenLivesTooLong);
    }
    if claims.jti.is_empty() || claims.jti.len() > 256 {
        return Err(DeployRefusal::NoTokenId);
    }
    Ok(until)
}

/// The issuer's digest must be the artifact's.
///
/// # Errors
/// When they differ.
pub fn check_digest(signed: Option<&Digest>, actual: &Digest) -> Result<(), DeployRefusal> {
    match signed {
        Some(signed) if signed != actual => Err(DeployRefusal::ArtifactChanged { signed: *signed, actual: *actual }),
        _ => Ok(()),
    }
}

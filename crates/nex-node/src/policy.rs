//! May this be deployed here, by this issuer, with these triggers? Every check before any work, in the order of 0.2.7.

use nex_protocol::agent;
use nex_protocol::claims::{Claims, ClaimsError};
use nex_protocol::deploy::{DeployRequest, Location, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::{Namespace, WorkloadName};
use nex_protocol::seal::{self, Environment};
use nex_protocol::subject;
use nkeys::XKey;

use crate::config::{NodeConfig, WorkloadLimits};

/// A token without an expiry (0.2.7 sends none) is taken this long after it was made; its id is remembered as long.
const TOKEN_LIFE: i64 = 3_600;
/// Tokens that promise to live longer than this are refused, so that the memory of spent ones stays small.
const LONGEST_TOKEN_LIFE: i64 = 7 * 24 * 3_600;
/// Largest reply a function may give.
const REPLY_BYTES: usize = 1024 * 1024;
/// Most arguments and triggers.
const MANY: usize = 256;

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
    /// Its triggers.
    pub triggers: Vec<String>,
    /// Its bounds.
    pub limits: agent::Limits,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

fn denied(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::Denied, message)
}

/// Checks a deploy request. Pure but for the key.
///
/// # Errors
/// The first check that fails, in the words of 0.2.7 where it has the same check.
pub fn admit(request: &DeployRequest, config: &NodeConfig, xkey: &XKey, now: i64) -> Result<Admitted, Failure> {
    let kind = kind(request, config)?;
    let triggers = triggers(request, kind, &config.deny_triggers)?;
    let environment = environment(request, xkey)?;
    let (name, claims) = claims(request, now)?;
    if !config.valid_issuers.is_empty() && !config.valid_issuers.contains(&claims.iss) {
        return Err(denied(format!("invalid workload issuer: {}", claims.iss)));
    }
    let spent_until = token_life(&claims, now)?;
    let signed_digest = claims.nats.hash.as_deref().and_then(|hash| hash.parse().ok());
    if signed_digest.is_none() && config.require_digest {
        return Err(denied(
            "Invalid deploy request: this node demands claims with the artifact's SHA-256 as hash; deploy with a client that signs it",
        ));
    }
    let location = request.location.clone().ok_or_else(|| bad("Invalid deploy request: it names no artifact location"))?;
    domain(request.jsdomain.as_deref().unwrap_or_default())?;
    if request.argv.as_ref().is_some_and(|argv| argv.len() > MANY) {
        return Err(bad(format!("Invalid deploy request: more than {MANY} arguments")));
    }
    let limits = limits(request, &config.workload_limits)?;
    machine_class(request, config)?;
    Ok(Admitted { name, kind, location, claims, spent_until, signed_digest, environment, triggers, limits })
}

fn machine_class(request: &DeployRequest, config: &NodeConfig) -> Result<(), Failure> {
    let classes = &config.microvm.classes;
    match &request.machine_class {
        Some(name) if !classes.contains_key(name) => {
            let name: String = name.chars().take(40).collect();
            let known: Vec<&str> = classes.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(bad(format!("Invalid deploy request: this node has no machine class '{name}'; it has: {known}")))
        }
        _ => Ok(()),
    }
}

fn kind(request: &DeployRequest, config: &NodeConfig) -> Result<WorkloadType, Failure> {
    let text = request.r#type.as_deref().unwrap_or(WorkloadType::Native.as_str());
    let unsupported = || denied(format!("Unsupported workload type on this node: {}", text.chars().take(40).collect::<String>()));
    let kind: WorkloadType = text.parse().map_err(|_unknown| unsupported())?;
    if config.workload_types.contains(&kind) { Ok(kind) } else { Err(unsupported()) }
}

fn triggers(request: &DeployRequest, kind: WorkloadType, denied_subjects: &[String]) -> Result<Vec<String>, Failure> {
    let triggers = request.trigger_subjects.clone().unwrap_or_default();
    if !kind.is_function() && !triggers.is_empty() {
        return Err(bad(format!("Unsupported workload type for trigger subject registration: {kind}")));
    }
    if kind.is_function() && triggers.is_empty() {
        return Err(bad("Invalid deploy request: at least one trigger subject is required for this workload type"));
    }
    if triggers.len() > MANY {
        return Err(bad(format!("Invalid deploy request: more than {MANY} trigger subjects")));
    }
    for trigger in &triggers {
        if !subject::is_valid_pattern(trigger) {
            return Err(bad(format!(
                "Invalid deploy request: '{}' is not a subject",
                trigger.chars().take(100).collect::<String>()
            )));
        }
        if denied_subjects.iter().any(|no| subject::overlap(no, trigger)) {
            return Err(denied(format!("The trigger subject {trigger} overlaps with subject(s) in this node's deny list")));
        }
    }
    Ok(triggers)
}

/// The domain becomes a token of a subject on the node's own connection: one too long would have the server cut that.
fn domain(domain: &str) -> Result<(), Failure> {
    let is_token = domain.len() <= 128 && !domain.contains(['.', '*', '>']) && subject::is_valid_pattern(domain);
    if domain.is_empty() || is_token {
        return Ok(());
    }
    let shown: String = domain.chars().take(40).collect();
    Err(bad(format!("Invalid deploy request: '{shown}' is not a JetStream domain")))
}

fn environment(request: &DeployRequest, xkey: &XKey) -> Result<Environment, Failure> {
    let failed = |why: &str| bad(format!("Failed to decrypt environment for deploy request: {why}"));
    let sealed = request.environment.as_deref().unwrap_or_default();
    if sealed.is_empty() {
        return Ok(Environment::new());
    }
    let sender = request.sender_public_key.as_deref().ok_or_else(|| failed("the request does not say who sealed it"))?;
    let environment = seal::open(sealed, xkey, sender).map_err(|error| failed(&error.to_string()))?;
    match environment.keys().find(|key| key.is_empty() || key.contains(['=', '\0'])) {
        Some(_) => Err(failed("a variable's name is empty or contains '='")),
        None if environment.values().any(|value| value.contains('\0')) => Err(failed("a variable's value contains a NUL byte")),
        None => Ok(environment),
    }
}

fn claims(request: &DeployRequest, now: i64) -> Result<(WorkloadName, Claims), Failure> {
    let undecodable = |why: &dyn std::fmt::Display| bad(format!("Invalid deploy request: could not decode workload JWT: {why}"));
    let token = request.workload_jwt.as_deref().ok_or_else(|| undecodable(&"there is none"))?;
    let claims = Claims::decode(token).map_err(|error| undecodable(&error))?;
    let name: WorkloadName = claims.sub.parse().map_err(|_invalid| {
        let shown: String = claims.sub.chars().take(80).collect();
        bad(format!("Invalid deploy request: workload name claim ('{shown}') does not match requirements (^[a-zA-Z0-9_-]+$)"))
    })?;
    claims.check_times(now).map_err(|error: ClaimsError| {
        denied(format!("Invalid deploy request: standard claims within JWT are not valid: {error}"))
    })?;
    Ok((name, claims))
}

fn token_life(claims: &Claims, now: i64) -> Result<i64, Failure> {
    let until = claims.exp.unwrap_or_else(|| claims.iat.saturating_add(TOKEN_LIFE));
    if until <= now {
        return Err(denied(
            "Invalid deploy request: standard claims within JWT are not valid: it has no expiry and is more than an hour old; sign a new one",
        ));
    }
    if until > now.saturating_add(LONGEST_TOKEN_LIFE) {
        return Err(denied(
            "Invalid deploy request: standard claims within JWT are not valid: it lives longer than a week; sign one with a nearer expiry",
        ));
    }
    if claims.jti.is_empty() || claims.jti.len() > 256 {
        return Err(bad("Invalid deploy request: standard claims within JWT are not valid: it has no id (jti)"));
    }
    Ok(until)
}

fn limits(request: &DeployRequest, own: &WorkloadLimits) -> Result<agent::Limits, Failure> {
    let asked = request.limits.unwrap_or_default();
    let memory_bytes = asked.memory_mib.map_or(own.memory_bytes, |mib| mib.saturating_mul(1024 * 1024));
    if memory_bytes > own.max_memory_bytes || memory_bytes == 0 {
        let most = own.max_memory_bytes / (1024 * 1024);
        return Err(denied(format!(
            "Invalid deploy request: a workload on this node may have 1 to {most} MiB of memory; ask for less, or raise workload_limits.max_memory_mib"
        )));
    }
    let longest = u64::try_from(own.max_call_timeout.as_millis()).unwrap_or(u64::MAX);
    let call_timeout_ms =
        asked.call_timeout_ms.unwrap_or_else(|| u64::try_from(own.call_timeout.as_millis()).unwrap_or(u64::MAX));
    if call_timeout_ms > longest || call_timeout_ms == 0 {
        return Err(denied(format!(
            "Invalid deploy request: a call on this node may take 1 to {longest} ms; ask for less, or raise workload_limits.max_call_timeout_ms"
        )));
    }
    let concurrency = asked.concurrency.unwrap_or(own.concurrency).clamp(1, 1_024);
    // A service has its whole sandbox unless it asks for less; a function's limit is that of one instance.
    let is_function = request.r#type.as_deref().is_some_and(|kind| kind.parse().is_ok_and(WorkloadType::is_function));
    let memory_bytes = if is_function || asked.memory_mib.is_some() { memory_bytes } else { 0 };
    Ok(agent::Limits { call_timeout_ms, memory_bytes, concurrency, reply_bytes: REPLY_BYTES })
}

/// The issuer's digest must be the artifact's.
///
/// # Errors
/// When they differ.
pub fn check_digest(signed: Option<&Digest>, actual: &Digest) -> Result<(), Failure> {
    match signed {
        Some(signed) if signed != actual => Err(denied(format!(
            "Invalid deploy request: the artifact's SHA-256 is {actual}, its issuer signed {signed}; it was changed after signing"
        ))),
        _ => Ok(()),
    }
}

/// May these claims stop what those started? In the order of 0.2.7; but a stop in the same second as the start is fine.
///
/// # Errors
/// The first check that fails, in the words of 0.2.7.
pub fn may_stop(token: &str, started: &Claims, namespace: &Namespace, subject_namespace: &str, now: i64) -> Result<(), Failure> {
    let claims =
        Claims::decode(token).map_err(|error| bad(format!("Invalid stop request: could not decode workload JWT: {error}")))?;
    // Tokens of 0.2.7 are numbered by issuer, name and second: a real stop within the second of its start has the start's
    // number, but not its digest.
    if claims.jti == started.jti && claims.nats.hash.is_some() {
        return Err(denied(
            "Invalid stop request: stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons",
        ));
    }
    if claims.sub != started.sub {
        return Err(denied("Invalid stop request: stop claims subject does not match original start claims subject"));
    }
    if claims.iss != started.iss {
        return Err(denied(
            "Invalid stop request: the only entity allowed to terminate a workload is the issuer that originally started it",
        ));
    }
    claims.check_times(now).map_err(|error| denied(format!("Invalid stop request: {error}")))?;
    if namespace.as_str() != subject_namespace {
        return Err(Failure::new(ErrorCode::NotFound, "No such workload"));
    }
    Ok(())
}

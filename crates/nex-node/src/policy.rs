//! May this be deployed here, by this issuer, with these triggers? Every check before any work, in the order of 0.2.7.

use nex_protocol::agent;
use nex_protocol::claims::{Claims, ClaimsError, Place};
use nex_protocol::deploy::{DeployRequest, Location, MAX_REVISION, WorkloadType, is_revision, request_digest};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{ErrorCode, Failure};
use nex_protocol::id::WorkloadName;
use nex_protocol::seal::{self, Binding, Environment};
use nex_protocol::subject;
use nkeys::XKey;

use crate::config::{Demands, NodeConfig, WorkloadLimits};
use crate::workload::spec::WorkloadSpec;

/// A token without an expiry (0.2.7 sends none) is taken this long after it was made; its id is remembered as long.
const TOKEN_LIFE: i64 = 3_600;
/// Tokens that promise to live longer than this are refused, so that the memory of spent ones stays small.
const MAX_TOKEN_LIFE: i64 = 7 * 24 * 3_600;
/// Largest reply a function may give.
const REPLY_BYTES: usize = 1024 * 1024;
/// Most arguments and triggers.
const MAX_ITEMS: usize = 256;

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
    /// Whether that was sealed for this very deploy; true where there is none.
    pub environment_is_bound: bool,
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
    let mut environment = environment(request, xkey)?;
    let (name, claims) = claims(request, now)?;
    let environment_is_bound = request.environment.as_deref().is_none_or(str::is_empty) || bound(&mut environment, &claims)?;
    if !config.valid_issuers.is_empty() && !config.valid_issuers.contains(&claims.iss) {
        return Err(denied(format!("invalid workload issuer: {}", claims.iss)));
    }
    let spent_until = token_life(&claims, now)?;
    let signed_digest = claims.nats.hash.as_deref().and_then(|hash| hash.parse().ok());
    let location = request.location.clone().ok_or_else(|| bad("Invalid deploy request: it names no artifact location"))?;
    domain(request.jsdomain.as_deref().unwrap_or_default())?;
    if request.argv.as_ref().is_some_and(|argv| argv.len() > MAX_ITEMS) {
        return Err(bad(format!("Invalid deploy request: more than {MAX_ITEMS} arguments")));
    }
    let limits = limits(request, &config.workload_limits)?;
    machine_class(request, config)?;
    if request.revision.as_deref().is_some_and(|revision| !is_revision(revision)) {
        return Err(bad(format!(
            "Invalid deploy request: its revision is not 1 to {MAX_REVISION} letters, digits and punctuation of ASCII"
        )));
    }
    Ok(Admitted { name, kind, location, claims, spent_until, signed_digest, environment, environment_is_bound, triggers, limits })
}

/// Is what was signed this request, on this node, in this namespace; and is all signed that the node demands? Only for new deploys: a
/// workload that was taken once is started again whatever is demanded since.
///
/// # Errors
/// The first that is not so.
pub fn check_signed(
    admitted: &Admitted,
    request: &DeployRequest,
    body: &[u8],
    place: Place<'_>,
    config: &NodeConfig,
) -> Result<(), Failure> {
    let refuse = |why: &str| Err(denied(format!("Invalid deploy request: {why}")));
    let claims = &admitted.claims;
    claims
        .check_place(place)
        .map_err(|error| denied(format!("Invalid deploy request: this workload JWT cannot be used: {error}")))?;
    if claims.nats.workload.is_some() {
        return refuse("this workload JWT stops a workload and starts none");
    }
    let digest = request_digest(body).map_err(|error| bad(format!("Unable to deserialize deploy request: {error}")))?;
    if claims.nats.request.is_some_and(|signed| signed != digest) {
        return refuse("it is not the one that its workload JWT was signed for; it was changed after signing");
    }
    if config.demands.digest && admitted.signed_digest.is_none() {
        return refuse("this node demands claims with the artifact's SHA-256 as hash; deploy with a client that signs it");
    }
    if config.demands.bound_claims && (!claims.is_bound_to_a_place() || claims.nats.request.is_none()) {
        return refuse(
            "this node demands claims that name it, the namespace and the request; deploy with a client that signs these",
        );
    }
    if config.demands.bound_environment && !admitted.environment_is_bound {
        return refuse("this node demands environments that name their issuer and token; deploy with a client that seals these");
    }
    if let Some(allowed) = &config.allow_triggers {
        let patterns = allowed.get(place.namespace).map_or(&[][..], Vec::as_slice);
        let is_allowed = |trigger: &&String| patterns.iter().any(|pattern| subject::covers(pattern, trigger));
        if let Some(trigger) = request.trigger_subjects.iter().flatten().find(|trigger| !is_allowed(trigger)) {
            return refuse(&format!("the trigger subject {trigger} is not among those allowed to this namespace"));
        }
    }
    Ok(())
}

/// Whether an environment says for which deploy it was sealed; it has to be this one then.
fn bound(environment: &mut Environment, claims: &Claims) -> Result<bool, Failure> {
    match Binding::take(environment) {
        None => Ok(false),
        Some(binding) if binding.issuer == claims.iss && binding.token == claims.jti => Ok(true),
        Some(_) => Err(denied("Failed to decrypt environment for deploy request: it was sealed for another deploy")),
    }
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
    if triggers.len() > MAX_ITEMS {
        return Err(bad(format!("Invalid deploy request: more than {MAX_ITEMS} trigger subjects")));
    }
    for trigger in &triggers {
        if !subject::is_valid_pattern(trigger) {
            return Err(bad(format!(
                "Invalid deploy request: '{}' is not a subject",
                trigger.chars().take(100).collect::<String>()
            )));
        }
        if subject::reaches_reserved(trigger) || denied_subjects.iter().any(|no| subject::overlap(no, trigger)) {
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
    if until > now.saturating_add(MAX_TOKEN_LIFE) {
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

/// May this token stop a workload? In the order of 0.2.7; but a stop in the same second as the start is fine. Gives the claims.
///
/// # Errors
/// The first check that fails, in the words of 0.2.7.
pub fn may_stop(token: &str, workload: &WorkloadSpec, place: Place<'_>, demands: Demands, now: i64) -> Result<Claims, Failure> {
    let refuse = |why: &dyn std::fmt::Display| denied(format!("Invalid stop request: {why}"));
    let claims =
        Claims::decode(token).map_err(|error| bad(format!("Invalid stop request: could not decode workload JWT: {error}")))?;
    let started = &workload.claims;
    // Tokens of 0.2.7 are numbered by issuer, name and second, so the id of a stop may be that of a start; a digest has only a start.
    if claims.nats.hash.is_some() || claims.nats.request.is_some() {
        return Err(refuse(
            &"stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons",
        ));
    }
    if claims.sub != started.sub {
        return Err(refuse(&"stop claims subject does not match original start claims subject"));
    }
    if claims.iss != started.iss {
        return Err(refuse(&"the only entity allowed to terminate a workload is the issuer that originally started it"));
    }
    claims.check_times(now).map_err(|error| refuse(&error))?;
    if workload.namespace.as_str() != place.namespace {
        return Err(Failure::new(ErrorCode::NotFound, "No such workload"));
    }
    claims.check_place(place).map_err(|error| refuse(&error))?;
    match &claims.nats.workload {
        Some(id) if *id != workload.id => return Err(refuse(&"its claims are for another workload")),
        Some(_) if claims.exp.is_none() || !claims.is_bound_to_a_place() => {
            return Err(refuse(&"claims that name a workload also name the node, the namespace and when they expire"));
        }
        Some(_) => {}
        None if demands.bound_claims => {
            return Err(refuse(
                &"this node demands claims that name it, the namespace and the workload; use a client that signs these",
            ));
        }
        // A token of 0.2.7 names nothing but the workload's name: one that was captured stops no later workload of that name.
        None if claims.iat < started.iat => return Err(refuse(&"its claims are older than the workload; sign new ones")),
        None if claims.iat < now.saturating_sub(TOKEN_LIFE) => {
            return Err(refuse(&"its claims are more than an hour old; sign new ones"));
        }
        None => {}
    }
    Ok(claims)
}

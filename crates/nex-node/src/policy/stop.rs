//! May this workload be stopped by whoever signed this token?

use nex_protocol::claims::{Claims, Place};

use super::deploy::TOKEN_LIFE;
use super::refusal::StopRefusal;
use crate::config::NodeConfig;
use crate::workload::spec::WorkloadSpec;

/// May this token stop a workload? In the order of 0.2.7; but a stop in the same second as the start is fine, and operators may stop what
/// others have started. Gives the claims.
///
/// # Errors
/// The first check that fails, in the words of 0.2.7.
pub fn may_stop(
    token: &str,
    workload: &WorkloadSpec,
    place: Place<'_>,
    config: &NodeConfig,
    now: i64,
) -> Result<Claims, StopRefusal> {
    let claims = Claims::decode(token).map_err(StopRefusal::Token)?;
    let started = &workload.claims;
    // Tokens of 0.2.7 are numbered by issuer, name and second, so the id of a stop may be that of a start; a digest has only a start.
    if claims.nats.hash.is_some() || claims.nats.request.is_some() {
        return Err(StopRefusal::StartClaims);
    }
    if claims.sub != started.sub {
        return Err(StopRefusal::Subject);
    }
    let is_operators = claims.iss != started.iss;
    if is_operators && !config.operators.contains(&claims.iss) {
        return Err(StopRefusal::Issuer);
    }
    claims.check_times(now).map_err(StopRefusal::Claims)?;
    if workload.namespace.as_str() != place.namespace {
        return Err(StopRefusal::NotFound);
    }
    claims.check_place(place).map_err(StopRefusal::Claims)?;
    match &claims.nats.workload {
        Some(id) if *id != workload.id => return Err(StopRefusal::OtherWorkload),
        Some(_) if claims.exp.is_none() || !claims.is_bound_to_a_place() => return Err(StopRefusal::Unbound),
        Some(_) => {}
        // What ends others' work is said of one workload, once.
        None if is_operators => return Err(StopRefusal::Unbound),
        None if config.demands.bound_claims => return Err(StopRefusal::BoundClaimsDemanded),
        // A token of 0.2.7 names nothing but the workload's name: one that was captured stops no later workload of that name.
        None if claims.iat < started.iat => return Err(StopRefusal::OlderThanTheWorkload),
        None if claims.iat < now.saturating_sub(TOKEN_LIFE) => return Err(StopRefusal::TooOld),
        None => {}
    }
    Ok(claims)
}

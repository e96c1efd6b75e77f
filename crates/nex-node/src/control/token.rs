//! Tokens are good once: each request of a deployer uses up its own.

use nex_protocol::claims::Claims;
use nex_protocol::envelope::{ErrorCode, Failure, chain};

use crate::journal::{Journal, Spending, SpentToken};

/// Uses up the token of a request; it is remembered until it expires, unless this process is killed before the request is settled.
///
/// # Errors
/// When it was used before, its issuer has used too many, or the journal does not take it.
pub(super) async fn spend(journal: &Journal, claims: &Claims, request: &str, until: i64, now: i64) -> Result<(), Failure> {
    let spending = journal.spend_token(spent(claims, until), now).await;
    judge(spending.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?, request)
}

/// Uses up the token of a stop. Where the journal does not take it, the stop is done nevertheless, for that may be what gives its disk room
/// again: the token names a workload that there is once, so whoever repeats it stops nothing else.
///
/// # Errors
/// When it was used before, or its issuer has used too many.
pub(super) async fn spend_on_stop(journal: &Journal, claims: &Claims, until: i64, now: i64) -> Result<(), Failure> {
    match journal.spend_token(spent(claims, until), now).await {
        Ok(spending) => judge(spending, "stop"),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the journal does not take the token of a stop; the workload is stopped nevertheless");
            Ok(())
        }
    }
}

fn spent(claims: &Claims, until: i64) -> SpentToken {
    SpentToken { token: claims.into(), issued: claims.iat, until }
}

fn judge(spending: Spending, request: &str) -> Result<(), Failure> {
    match spending {
        Spending::Done => Ok(()),
        Spending::UsedBefore => {
            let why = format!("Invalid {request} request: this workload JWT was used before; sign a new one for each {request}");
            Err(Failure::new(ErrorCode::Denied, why))
        }
        Spending::Unknown => {
            let why = format!(
                "Invalid {request} request: this node has lost its list of used workload JWTs, and this one was signed before; sign a new one"
            );
            Err(Failure::new(ErrorCode::Denied, why))
        }
        Spending::TooMany => Err(Failure::new(
            ErrorCode::Unavailable,
            "this issuer has used too many workload JWTs that have not expired yet; sign them with a nearer expiry, or wait",
        )),
    }
}

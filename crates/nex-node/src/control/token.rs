//! Tokens are good once: each request of a deployer uses up its own.

use nex_protocol::claims::Claims;
use nex_protocol::envelope::{ErrorCode, Failure};

use crate::journal::{Journal, Spending, SpentToken};

/// Uses up the token of a request; it is remembered until it expires.
///
/// # Errors
/// When it was used before, or its issuer has used too many.
pub(super) async fn spend(journal: &Journal, claims: &Claims, request: &str, until: i64, now: i64) -> Result<(), Failure> {
    let token = SpentToken { issuer: claims.iss.clone(), id: claims.jti.clone(), until };
    match journal.spend_token(token, now).await {
        Ok(Spending::Done) => Ok(()),
        Ok(Spending::UsedBefore) => {
            let why = format!("Invalid {request} request: this workload JWT was used before; sign a new one for each {request}");
            Err(Failure::new(ErrorCode::Denied, why))
        }
        Ok(Spending::TooMany) => Err(Failure::new(
            ErrorCode::Unavailable,
            "this issuer has used too many workload JWTs that have not expired yet; sign them with a nearer expiry, or wait",
        )),
        Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
    }
}

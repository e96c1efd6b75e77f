//! Tokens are good once: each request of a deployer uses up its own.

use nex_protocol::claims::Claims;
use nex_protocol::envelope::{ErrorCode, Failure};

use crate::journal::{Journal, Spending, SpentToken};

/// Uses up the token of a request; it is remembered until it expires, unless this process is killed before the request is settled.
///
/// # Errors
/// When it was used before, or its issuer has used too many.
pub(super) async fn spend(journal: &Journal, claims: &Claims, request: &str, until: i64, now: i64) -> Result<(), Failure> {
    let token = SpentToken { token: claims.into(), issued: claims.iat, until };
    match journal.spend_token(token, now).await {
        Ok(Spending::Done) => Ok(()),
        Ok(Spending::UsedBefore) => {
            let why = format!("Invalid {request} request: this workload JWT was used before; sign a new one for each {request}");
            Err(Failure::new(ErrorCode::Denied, why))
        }
        Ok(Spending::Unknown) => {
            let why = format!(
                "Invalid {request} request: this node has lost its list of used workload JWTs, and this one was signed before; sign a new one"
            );
            Err(Failure::new(ErrorCode::Denied, why))
        }
        Ok(Spending::TooMany) => Err(Failure::new(
            ErrorCode::Unavailable,
            "this issuer has used too many workload JWTs that have not expired yet; sign them with a nearer expiry, or wait",
        )),
        Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
    }
}

//! Bodies of requests, as they come from anybody.

use nex_protocol::envelope::{ErrorCode, Failure};
use serde::de::DeserializeOwned;

/// Reads a body; `null` and what is not an object are malformed.
pub(super) fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Failure> {
    let bad = |why: String| Failure::new(ErrorCode::BadRequest, format!("Unable to deserialize {what} request: {why}"));
    // A decoder of structs would take an array too, member by member.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(bad("expected an object, found an array".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}

//! Digests and their HMAC. The names are checked by the caller.

use ring::{digest, hmac};

use super::{bytes, text};
use crate::value::{Fresh, Scope, Thrown, Value};

/// `(algorithm, bytes)`
pub(crate) fn digest<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let algorithm = match text(scope, given, 0)?.as_str() {
        "SHA-1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => &digest::SHA384,
        "SHA-512" => &digest::SHA512,
        _ => &digest::SHA256,
    };
    scope.bytes(digest::digest(algorithm, &bytes(scope, given, 1)).as_ref())
}

/// `(algorithm, key, bytes)`
pub(crate) fn hmac<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let algorithm = match text(scope, given, 0)?.as_str() {
        "SHA-1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => hmac::HMAC_SHA384,
        "SHA-512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let key = hmac::Key::new(algorithm, &bytes(scope, given, 1));
    scope.bytes(hmac::sign(&key, &bytes(scope, given, 2)).as_ref())
}

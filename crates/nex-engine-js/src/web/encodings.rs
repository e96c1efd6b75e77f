//! Encodings of texts other than those of Unicode that are little-endian, by the Encoding standard.

use encoding_rs::{Encoding, REPLACEMENT};

use super::{bytes, text};
use crate::value::{Fresh, Scope, Thrown, Value};

/// `(label)`; the encoding's name in small letters, or undefined where there is none.
pub(crate) fn name<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    match known(&text(scope, given, 0)?) {
        Some(encoding) => scope.text(&encoding.name().to_ascii_lowercase()),
        None => Ok(scope.undefined()),
    }
}

/// `(label, bytes, fatal)`; undefined where they are none of its texts and nothing may be put in their place.
pub(crate) fn decode<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (Some(encoding), bytes) = (known(&text(scope, given, 0)?), bytes(scope, given, 1)) else { return Ok(scope.undefined()) };
    let (text, has_errors) = encoding.decode_without_bom_handling(&bytes);
    if has_errors && given.get(2).is_some_and(|fatal| scope.to_bool(*fatal)) {
        return Ok(scope.undefined());
    }
    scope.text(&text)
}

fn known(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.as_bytes()).filter(|encoding| *encoding != REPLACEMENT)
}

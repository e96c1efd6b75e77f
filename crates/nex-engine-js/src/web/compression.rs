//! Compression of what is whole: nothing of it stays between two calls of these functions.

use std::io::{self, Read as _};

use flate2::Compression;
use flate2::bufread::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};

use super::{bytes, text};
use crate::value::{Fresh, Scope, Thrown, Value};

/// Most bytes that anything is unpacked to, wherever a function may have more memory: they are outside of its own until they are whole.
const MAX_UNPACKED: u64 = 64 << 20;

/// `(format, bytes)`
pub(crate) fn compress<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (format, bytes) = (text(scope, given, 0)?, bytes(scope, given, 1));
    let (bytes, level, mut packed) = (bytes.as_slice(), Compression::default(), Vec::new());
    let read = match format.as_str() {
        "gzip" => GzEncoder::new(bytes, level).read_to_end(&mut packed),
        "deflate" => ZlibEncoder::new(bytes, level).read_to_end(&mut packed),
        _ => DeflateEncoder::new(bytes, level).read_to_end(&mut packed),
    };
    read.map_or_else(|_never| Ok(scope.undefined()), |_| scope.bytes(&packed))
}

/// `(format, bytes)`; nothing where they are not of that format, are not whole, have something behind them, or are too many.
pub(crate) fn decompress<'a>(scope: Scope<'a>, given: &[Value<'a>], room: u64) -> Result<Fresh<'a>, Thrown> {
    let (format, bytes) = (text(scope, given, 0)?, bytes(scope, given, 1));
    let most = room.min(MAX_UNPACKED);
    match unpacked(&format, &bytes, most) {
        Ok(unpacked) if unpacked.len() as u64 > most => {
            Err(scope.throw_text("the bytes are unpacked to more than the function may have"))
        }
        Ok(unpacked) => scope.bytes(&unpacked),
        Err(_damaged) => Ok(scope.undefined()),
    }
}

/// At most one byte more than `most`.
fn unpacked(format: &str, mut bytes: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    match format {
        "gzip" => MultiGzDecoder::new(&mut bytes).take(most + 1).read_to_end(&mut unpacked),
        "deflate" => ZlibDecoder::new(&mut bytes).take(most + 1).read_to_end(&mut unpacked),
        _ => DeflateDecoder::new(&mut bytes).take(most + 1).read_to_end(&mut unpacked),
    }?;
    let is_whole = bytes.is_empty() || unpacked.len() as u64 > most;
    if is_whole { Ok(unpacked) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_no_packed_text_is_an_error_and_never_more_than_may_be(bytes: Vec<u8>, which in 0_usize..3, most in 0_u64..100) {
            let format = ["gzip", "deflate", "deflate-raw"][which];
            if let Ok(unpacked) = unpacked(format, &bytes, most) {
                prop_assert!(unpacked.len() as u64 <= most + 1);
            }
        }
    }
}

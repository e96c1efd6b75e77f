//! The identity of an artifact: SHA-256, written as lower-case hex.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256 of an artifact's bytes. Shape: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is not a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sha-256 digest of 64 hex digits: '{0}'")]
pub struct NotADigest(pub String);

impl Digest {
    /// Digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Digest of everything a reader gives, and how many bytes that was.
    ///
    /// # Errors
    /// The reader's own.
    pub fn read(mut reader: impl std::io::Read) -> std::io::Result<(Self, u64)> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
    }

    /// Reads the form in which the NATS object store records it: `SHA-256=<base64url>`.
    #[must_use]
    pub fn from_object_store(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("SHA-256=").or_else(|| text.strip_prefix("sha-256="))?;
        let bytes = BASE64URL.decode(encoded.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(encoded.as_bytes())).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// A digest in the making, for bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Hasher {
    state: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.state.update(piece);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
    }

    /// The digest of all pieces, and how many bytes they were.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.state.finalize().into()), self.bytes)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let refuse = || NotADigest(text.chars().take(80).collect());
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_e| refuse())?;
        Ok(Self(bytes.try_into().map_err(|_e| refuse())?))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;
    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_anything_else_is_refused() {
        let digest = Digest::of(b"hello");
        assert_eq!(digest.to_string(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("abc12345TODOmakethisreal".parse::<Digest>().is_err());
        assert_eq!(Digest::read(&b"hello"[..]).unwrap(), (digest, 5));
    }

    #[test]
    fn the_object_store_form_is_understood() {
        let text = "SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
        assert_eq!(Digest::from_object_store(text), Some(Digest::of(b"hello")));
        assert_eq!(Digest::from_object_store("MD5=aaaa"), None);
    }
}

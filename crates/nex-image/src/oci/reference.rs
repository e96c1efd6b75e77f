//! Image references and digests.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::file::hex;

/// Why a text is not a reference or digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// The registry is invalid.
    #[error("'{0}' is no host of a registry")]
    Registry(String),
    /// The repository is invalid.
    #[error("'{0}' is no repository: lower-case letters and digits, with '.', '_', '-' and '/' between them")]
    Repository(String),
    /// The tag is invalid.
    #[error("'{0}' is no tag: letters, digits, '.', '_' and '-', 128 at most")]
    Tag(String),
    /// The digest is invalid.
    #[error("'{0}' is no digest: sha256: and 64 hexadecimal digits")]
    Digest(String),
}

/// A SHA-256 digest, `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(String);

impl Digest {
    /// That of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_digit) => Ok(Self(hex.to_owned())),
            _ => Err(ReferenceError::Digest(text)),
        }
    }
}

/// An image reference: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port if given.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag; `latest` if none is given.
    pub tag: String,
    /// The digest; takes precedence over the tag.
    pub digest: Option<Digest>,
}

/// Registry of references without a host.
const HUB: &str = "registry-1.docker.io";

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::try_from(digest.to_owned())?)),
            None => (text, None),
        };
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        // The first component is a host if it has a dot or a port or is localhost; otherwise it belongs to the repository.
        let host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if host(first) => (first, rest.to_owned()),
            Some(_) => (HUB, name.to_owned()),
            None => (HUB, format!("library/{name}")),
        };
        let registry = if registry == "docker.io" || registry == "index.docker.io" { HUB } else { registry };
        let begins_well = registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        if !begins_well || !registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
            return Err(ReferenceError::Registry(registry.to_owned()));
        }
        if !repository.split('/').all(is_component) || repository.len() > 255 {
            return Err(ReferenceError::Repository(repository));
        }
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(is_tag) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.to_owned(), digest })
    }
}

fn is_component(part: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (part.as_bytes().first(), part.as_bytes().last());
    first.is_some_and(plain) && last.is_some_and(plain) && part.bytes().all(|byte| plain(&byte) || b"._-".contains(&byte))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => write!(f, ":{}", self.tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalized_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, expected) in [
            ("alpine", "registry-1.docker.io/library/alpine:latest".to_owned()),
            ("me/app:v1.2", "registry-1.docker.io/me/app:v1.2".to_owned()),
            ("docker.io/library/alpine:3.22", "registry-1.docker.io/library/alpine:3.22".to_owned()),
            ("localhost:5000/a/b-c", "localhost:5000/a/b-c:latest".to_owned()),
            ("ghcr.io/o/r:t", "ghcr.io/o/r:t".to_owned()),
            (&format!("ghcr.io/o/r:t@{digest}"), format!("ghcr.io/o/r@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn invalid_references_are_refused() {
        for text in
            ["", "UPPER", "a//b", "ghcr.io/../x", "a:b c", "a@sha256:12", "a@md5:x", "-a", "a.b/..%2f", "ho st.x/a", "../a", "a:"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}

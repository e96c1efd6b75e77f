//! Indexes and manifests, and the selection of a platform.

use serde::Deserialize;

use super::error::OciError;
use super::reference::Digest;

/// Largest index or manifest, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Reference to a blob.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(super) platform: Option<Platform>,
    #[serde(rename = "mediaType")]
    pub(super) media_type: Option<String>,
    #[serde(default)]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    /// One of a blob without a type of its own.
    pub(super) fn new(digest: Digest, size: u64) -> Self {
        Self { digest, size, platform: None, media_type: None, annotations: std::collections::BTreeMap::new() }
    }
}

/// An operating system and a processor, as images name them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

impl Platform {
    /// What this machine is.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }

    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

/// An index, which has manifests, or a manifest, which has layers.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) config: Option<Descriptor>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, OciError> {
        serde_json::from_slice(bytes).map_err(|source| OciError::Document { what: what.to_owned(), source })
    }
}

/// Selects the first image for this machine.
pub(crate) fn select_platform(manifests: Vec<Descriptor>) -> Result<Descriptor, OciError> {
    let wanted = Platform::host();
    let offered =
        manifests.iter().filter_map(|found| found.platform.as_ref()).map(Platform::shown).collect::<Vec<_>>().join(", ");
    let mut fitting = manifests.into_iter().filter(|found| found.platform.as_ref().is_none_or(|platform| *platform == wanted));
    fitting.next().ok_or_else(|| OciError::Platform { wanted: wanted.shown(), offered })
}

//! What kind of artifact a workload is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of artifact a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// A binary or script for the node's operating system, run as a service.
    Native,
    /// A JavaScript function; `js` on input means the same.
    #[serde(alias = "js")]
    V8,
    /// A WebAssembly function: a WASI command or a component with `wasi:cli/run`.
    Wasm,
    /// An OCI image, run as a service: an archive of its layout.
    Oci,
}

/// A text that names no workload type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown workload type '{0}': expected native, v8 (or js), wasm or oci")]
pub struct UnknownType(String);

impl WorkloadType {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::V8 => "v8",
            Self::Wasm => "wasm",
            Self::Oci => "oci",
        }
    }

    /// Whether a workload of this type is called (by triggers) instead of running by itself.
    #[must_use]
    pub fn is_function(self) -> bool {
        matches!(self, Self::V8 | Self::Wasm)
    }

    /// How long a node may take to prepare one for its start, beyond the time of a deploy: a root is made of an image, machine code of a
    /// module. Zero where there is nothing to prepare.
    #[must_use]
    pub fn preparation(self) -> Duration {
        match self {
            Self::Oci => Duration::from_secs(5 * 60),
            Self::Wasm => Duration::from_secs(2 * 60),
            Self::Native | Self::V8 => Duration::ZERO,
        }
    }

    /// Whether a text names this type.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        text.parse() == Ok(self)
    }
}

impl fmt::Display for WorkloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkloadType {
    type Err = UnknownType;
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        match text {
            "native" => Ok(Self::Native),
            "v8" | "js" => Ok(Self::V8),
            "wasm" => Ok(Self::Wasm),
            "oci" => Ok(Self::Oci),
            other => Err(UnknownType(other.chars().take(40).collect())),
        }
    }
}

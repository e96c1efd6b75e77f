//! The names of sandboxes and of the files inside them; none leads out of its directory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a sandbox on its node; safe as a file name and as part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// Longest id.
    pub const MAX: usize = 64;

    /// Accepts letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`InvalidName`] for anything else, for nothing and for more than [`Self::MAX`] characters.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(plain) {
            return Err(InvalidName::of(&text));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that could lead out of its directory or break a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no usable name; use letters, digits, '-' and '_' (in file names also '.', not first)")]
pub struct InvalidName(String);

impl InvalidName {
    fn of(name: &str) -> Self {
        Self(name.chars().take(80).collect())
    }
}

/// A file name of one part that cannot be mistaken for a path, an option or a hidden file.
pub(crate) fn check_file_name(name: &str) -> Result<(), InvalidName> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let first = name.bytes().next().is_some_and(|byte| !matches!(byte, b'.' | b'-'));
    if first && name.len() <= 200 && name.bytes().all(plain) { Ok(()) } else { Err(InvalidName::of(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_file_names_never_lead_out_of_a_directory() {
        for name in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "-rf", ".hidden", "a b", "\u{e9}"] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
        for name in ["", "..", "a/b", "a.b", "a\nb"] {
            assert!(SandboxId::parse(name).is_err(), "{name:?}");
        }
        assert!(serde_json::from_str::<SandboxId>("\"../../etc\"").is_err());
        assert!(check_file_name("module-1.2_x.wasm").is_ok());
        assert_eq!(SandboxId::parse("A1-b_2").unwrap().as_str(), "A1-b_2");
    }
}

//! How far a workload is kept apart from others (new).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a workload is kept apart from others, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Functions of one namespace share jailed agents; each call has memory of its own.
    Isolate,
    /// A jailed agent of its own.
    Process,
    /// A virtual machine of its own.
    MicroVm,
}

/// A text that names no isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no isolation: expected isolate, process or microvm")]
pub struct UnknownIsolation(String);

impl Isolation {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolate => "isolate",
            Self::Process => "process",
            Self::MicroVm => "microvm",
        }
    }

    /// The names of some, for people and tags.
    #[must_use]
    pub fn names(all: &[Self]) -> String {
        all.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = UnknownIsolation;
    fn from_str(text: &str) -> Result<Self, UnknownIsolation> {
        let all = [Self::Isolate, Self::Process, Self::MicroVm];
        all.into_iter().find(|one| one.as_str() == text).ok_or_else(|| UnknownIsolation(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_are_ordered_and_read_as_they_are_written() {
        let all = [Isolation::Isolate, Isolation::Process, Isolation::MicroVm];
        assert!(all.is_sorted());
        assert!(all.iter().all(|one| one.as_str().parse() == Ok(*one)));
        assert!(all.iter().all(|one| serde_json::to_value(one).unwrap() == one.as_str()));
        assert!("Process".parse::<Isolation>().is_err());
    }
}

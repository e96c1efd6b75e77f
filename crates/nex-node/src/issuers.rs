//! Whose keys count on a node: those that may deploy, and operators, who may stop anything.
//!
//! Both are named by the configuration (`valid_issuers`, `operators`), and by a file in the state directory that `nex issuer` writes and
//! the node reads at each deploy and stop, so that what is added there counts at once. Where no key is named that may deploy, all may.
//! Being an operator is not being permitted to deploy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nex_protocol::id::is_public_key;
use serde::{Deserialize, Serialize};

use crate::config::NodeConfig;
use crate::state_dir;

/// Name of the file in the state directory.
const FILE: &str = "issuers.json";
/// Most keys, and the longest name of one.
const MAX_KEYS: usize = 1_000;
const MAX_NAME: usize = 100;
/// Longest file, bytes.
const MAX_BYTES: u64 = 512 * 1024;

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// It cannot be read or written.
    #[error("cannot use the list of issuers {path}; next: run this as the node's user, or name the node's --state-dir")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no list.
    #[error("the list of issuers {path} is not valid: {why}; next: restore it, or remove it and add the keys again")]
    Malformed {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not a key.
    #[error("'{0}' is not a public nkey (56 characters, A…, U…, O…); next: see yours with `nex whoami`")]
    Key(String),
    /// Too long a name.
    #[error("a key's name has at most {MAX_NAME} characters, none of them a line break; next: give a shorter one")]
    Name,
    /// Too many.
    #[error("a node knows at most {MAX_KEYS} issuers; next: remove some")]
    Full,
}

/// What a key may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Whose it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it may deploy.
    #[serde(default)]
    pub deploys: bool,
    /// Whether it may stop anything.
    #[serde(default)]
    pub operates: bool,
}

/// The keys of a state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Issuers(BTreeMap<String, Issuer>);

impl Issuers {
    /// Reads them; none where there is no file.
    ///
    /// # Errors
    /// [`IssuersError`]; what cannot be read permits nobody.
    pub fn read(state: &Path) -> Result<Self, IssuersError> {
        let path = state.join(FILE);
        let failed = |source| IssuersError::Io { path: path.clone(), source };
        let malformed = |why: String| IssuersError::Malformed { path: path.clone(), why };
        match fs::metadata(&path) {
            Ok(found) if found.len() > MAX_BYTES => return Err(malformed(format!("it is larger than {MAX_BYTES} bytes"))),
            Ok(_) => {}
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let issuers: Self = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        match issuers.0.keys().find(|key| !is_public_key(key)) {
            Some(key) => Err(malformed(format!("'{key}' is not a public nkey"))),
            None => Ok(issuers),
        }
    }

    /// Writes them, whole or not at all; the node of this directory reads them from then on.
    ///
    /// # Errors
    /// [`IssuersError::Io`]
    pub fn write(&self, state: &Path) -> Result<(), IssuersError> {
        let path = state.join(FILE);
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        let made = state_dir::make_private(state).map_err(io::Error::other);
        made.and_then(|()| state_dir::write_private(&path, &bytes)).map_err(|source| IssuersError::Io { path, source })
    }

    /// Lets a key do more than before; gives what it may do now.
    ///
    /// # Errors
    /// [`IssuersError::Key`], [`IssuersError::Name`], [`IssuersError::Full`]
    pub fn add(&mut self, key: &str, more: Issuer) -> Result<Issuer, IssuersError> {
        if !is_public_key(key) {
            return Err(IssuersError::Key(key.chars().take(80).collect()));
        }
        if more.name.chars().count() > MAX_NAME || more.name.contains(char::is_control) {
            return Err(IssuersError::Name);
        }
        if self.0.len() >= MAX_KEYS && !self.0.contains_key(key) {
            return Err(IssuersError::Full);
        }
        let known = self.0.entry(key.to_owned()).or_default();
        known.deploys |= more.deploys;
        known.operates |= more.operates;
        if !more.name.is_empty() {
            known.name = more.name;
        }
        Ok(known.clone())
    }

    /// Takes a key off the list; whether it was on it.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Issuer)> {
        self.0.iter().map(|(key, issuer)| (key.as_str(), issuer))
    }

    /// A configuration with these keys besides its own.
    #[must_use]
    pub fn besides(&self, config: &NodeConfig) -> NodeConfig {
        let mut config = config.clone();
        config.valid_issuers.extend(self.iter().filter(|(_, it)| it.deploys).map(|(key, _)| key.to_owned()));
        config.operators.extend(self.iter().filter(|(_, it)| it.operates).map(|(key, _)| key.to_owned()));
        config
    }

    /// Whether any may deploy: then no other may.
    #[must_use]
    pub fn are_closed(&self) -> bool {
        self.0.values().any(|issuer| issuer.deploys)
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;

    use super::*;

    fn deploys() -> Issuer {
        Issuer { deploys: true, ..Issuer::default() }
    }

    #[test]
    fn keys_are_added_with_what_they_may_do_and_removed() {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join("node");
        assert_eq!(Issuers::read(&directory).unwrap(), Issuers::default());
        let key = KeyPair::new_account().public_key();
        let mut issuers = Issuers::default();
        issuers.add(&key, Issuer { name: "ops".into(), operates: true, ..Issuer::default() }).unwrap();
        assert!(!issuers.are_closed(), "an operator alone closes nothing");
        assert_eq!(issuers.add(&key, deploys()).unwrap(), Issuer { name: "ops".into(), deploys: true, operates: true });
        issuers.write(&directory).unwrap();
        let mut read = Issuers::read(&directory).unwrap();
        assert!(read == issuers && read.are_closed());
        assert!(read.remove(&key) && !read.remove(&key) && !read.are_closed());
    }

    #[test]
    fn what_is_no_list_permits_nobody() {
        let state = tempfile::tempdir().unwrap();
        for text in ["", "[]", r#"{"me":{"deploys":true}}"#, r#"{"A":1}"#, &"x".repeat(600_000)] {
            fs::write(state.path().join(FILE), text).unwrap();
            assert!(Issuers::read(state.path()).is_err(), "{text:.20}");
        }
        let mut issuers = Issuers::default();
        assert!(issuers.add("me", deploys()).is_err());
        let name = "x\ny".to_owned();
        assert!(issuers.add(&KeyPair::new_account().public_key(), Issuer { name, ..deploys() }).is_err());
    }
}

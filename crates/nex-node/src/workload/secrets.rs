//! Which secrets a workload uses, and what they were when it was last started. [`crate::secrets`] reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nex_protocol::id::SecretName;

/// The secrets of a workload: its variables by the names of their secrets, and what they were when it was last started.
#[derive(Default)]
pub struct Wanted {
    variables: BTreeMap<String, SecretName>,
    known: Mutex<BTreeMap<SecretName, Known>>,
    /// Whether a version that is known here did not get to the workload yet.
    is_owed: AtomicBool,
}

/// A secret as it was last read.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) version: u64,
    /// Absent where an earlier process has read it.
    pub(crate) value: Option<String>,
}

impl Wanted {
    /// These, by variable.
    #[must_use]
    pub fn new(variables: BTreeMap<String, SecretName>) -> Self {
        Self { variables, known: Mutex::default(), is_owed: AtomicBool::new(false) }
    }

    /// Whether a variable gets its value from a secret.
    #[must_use]
    pub fn has(&self, variable: &str) -> bool {
        self.variables.keys().any(|own| own.eq_ignore_ascii_case(variable))
    }

    /// The names of the secrets, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.variables.values().map(ToString::to_string).collect();
        names.into_iter().collect()
    }

    /// The variables, and the names of their secrets.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, SecretName> {
        &self.variables
    }

    /// Says whether a version that is known here is still to get to the workload, which runs with another one.
    pub(crate) fn owe(&self, is_owed: bool) {
        self.is_owed.store(is_owed, Ordering::Relaxed);
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.is_owed.load(Ordering::Relaxed)
    }

    pub(crate) fn known(&self, name: &SecretName) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The versions that were last read.
    pub(crate) fn versions(&self) -> BTreeMap<SecretName, u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, known)| (name.clone(), known.version)).collect()
    }

    /// An earlier process has started it with these versions.
    pub(crate) fn had(&self, versions: &BTreeMap<SecretName, u64>) {
        for (name, version) in versions {
            self.learn(name, Known { version: *version, value: None });
        }
    }

    pub(crate) fn learn(&self, name: &SecretName, known: Known) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), known);
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("variables", &self.variables).finish_non_exhaustive()
    }
}

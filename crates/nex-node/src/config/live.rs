//! The configuration of a running node: some of it can be changed while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use super::NodeConfig;

/// The keys of the file that count at once when it is read again; all others need a new start.
pub const RELOADED: [&str; 10] = [
    "allow_trigger_subjects",
    "artifact_cache_mib",
    "deny_trigger_subjects",
    "operators",
    "quotas",
    "require_bound_claims",
    "require_bound_environment",
    "require_digest",
    "valid_issuers",
    "workload_types",
];

/// A configuration that can be read again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveConfig(Arc<RwLock<Arc<NodeConfig>>>);

impl LiveConfig {
    /// What the node was started with.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// What counts now.
    #[must_use]
    pub fn now(&self) -> Arc<NodeConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes from another configuration what can be changed, see [`RELOADED`].
    pub fn reload(&self, new: NodeConfig) {
        let old = NodeConfig::clone(&self.now());
        let changed = NodeConfig {
            allow_triggers: new.allow_triggers,
            artifact_cache_bytes: new.artifact_cache_bytes,
            deny_triggers: new.deny_triggers,
            demands: new.demands,
            quotas: new.quotas,
            operators: new.operators,
            valid_issuers: new.valid_issuers,
            workload_types: new.workload_types,
            ..old
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(changed);
    }
}

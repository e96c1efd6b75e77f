//! What a workload's deployer may call by the node: its function or service as it runs now, with the slots that all its calls share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nex_protocol::id::WorkloadId;
use tokio::sync::Semaphore;

use crate::called::Called;

/// A function or service that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callee {
    /// It.
    pub called: Called,
    /// Calls it may have under way by the node.
    pub slots: Arc<Semaphore>,
}

/// Those of a node.
#[derive(Debug, Default)]
pub struct Callees(Mutex<BTreeMap<WorkloadId, Callee>>);

impl Callees {
    /// A workload runs, or runs again.
    pub fn put(&self, id: &WorkloadId, callee: Callee) {
        self.lock().insert(id.clone(), callee);
    }

    /// How it is called.
    #[must_use]
    pub fn get(&self, id: &WorkloadId) -> Option<Callee> {
        self.lock().get(id).cloned()
    }

    /// It is over.
    pub fn forget(&self, id: &WorkloadId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, Callee>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What a workload's sandbox uses at this moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nex_process::usage::ResourceUse;

use crate::agents::Agent;

/// Reads what the sandbox of a workload uses, whichever it has. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// The agent ends with its last owner, which this is not.
    agent: Arc<Mutex<Weak<Agent>>>,
}

impl Meter {
    /// The workload has an agent.
    pub(super) fn watch(&self, agent: &Arc<Agent>) {
        *self.lock() = Arc::downgrade(agent);
    }

    /// What it uses; nothing while it has no sandbox. Reads files of the kernel.
    #[must_use]
    pub fn read(&self) -> Option<ResourceUse> {
        let agent = self.lock().upgrade()?;
        agent.usage()
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Agent>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

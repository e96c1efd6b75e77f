//! The end of a sandbox that nobody stopped: removed in the background, or on the spot where there is no background any more.

use std::sync::Arc;

use nex_process::{Child, Deadline, Rung};

use super::{REMOVAL, Shared};
use crate::SandboxRecord;
use crate::record::{KILL, remove_leftover, remove_now};

/// What is to be removed. Dropped undone (the runtime ends, the provider is closed), it does its work at once.
pub(super) struct Removal {
    shared: Arc<Shared>,
    record: SandboxRecord,
    child: Option<Child>,
    done: bool,
}

impl Removal {
    /// Starts the removal and returns.
    pub(super) fn start(shared: &Arc<Shared>, record: SandboxRecord, child: Option<Child>) {
        let removal = Self { shared: Arc::clone(shared), record, child, done: false };
        if tokio::runtime::Handle::try_current().is_ok() {
            shared.removal.spawn("remove sandbox", removal.run());
        }
    }

    async fn run(mut self) {
        if let Some(child) = &self.child {
            child.shutdown(&[KILL, Rung::Kill]).await;
        }
        remove_leftover(&self.record, Deadline::after(REMOVAL)).await;
        self.done = true;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.done {
            // An own child is killed by being dropped.
            drop(self.child.take());
            remove_now(&self.record);
        }
        self.shared.slots().free(self.record.uid);
    }
}

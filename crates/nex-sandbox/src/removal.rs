//! The end of a sandbox that nobody stopped: removed in the background, or on the spot where there is no background any more.

use std::sync::Arc;

use futures::future::BoxFuture;
use nex_process::Deadline;

use crate::SandboxRecord;
use crate::host::HostResources;
use crate::record::{REMOVAL, remove_leftover, remove_now};

/// What is to be removed. Dropped undone (the runtime ends, the provider is closed), it does its work at once.
pub(crate) struct Removal {
    host: Arc<HostResources>,
    record: SandboxRecord,
    /// Ends the processes and what only can be awaited; what it owns is killed if it is dropped before.
    end: Option<BoxFuture<'static, ()>>,
    done: bool,
}

impl Removal {
    /// Starts the removal and returns.
    pub(crate) fn start(host: &Arc<HostResources>, record: SandboxRecord, end: BoxFuture<'static, ()>) {
        let removal = Self { host: Arc::clone(host), record, end: Some(end), done: false };
        if tokio::runtime::Handle::try_current().is_ok() {
            host.removal.spawn("remove sandbox", removal.run());
        }
    }

    async fn run(mut self) {
        if let Some(end) = &mut self.end {
            end.await;
        }
        self.end = None;
        remove_leftover(&self.record, Deadline::after(REMOVAL)).await;
        self.done = true;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.done {
            drop(self.end.take());
            remove_now(&self.record);
        }
        self.host.uids().free(self.record.uid);
    }
}

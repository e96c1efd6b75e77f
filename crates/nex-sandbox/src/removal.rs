//! Removes a dropped sandbox in the background, or synchronously when no runtime is left.

use std::sync::Arc;

use futures::future::BoxFuture;
use nex_process::Deadline;

use crate::host::HostResources;
use crate::record::{REMOVAL, SandboxRecord, remove_leftover, remove_now};

/// A removal that is due. Dropped before it is done (the runtime ends, the provider is closed), it runs synchronously.
pub(crate) struct Removal {
    host: Arc<HostResources>,
    record: SandboxRecord,
    /// Ends the processes and removes what needs an await; if it is dropped early, what it owns is killed.
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

//! A network connection between its creation and the start of its machine.

use std::sync::Arc;

use nex_network::Attachment;
use nex_process::Deadline;

use super::shared::Shared;
use crate::record::REMOVAL;

/// A connection that no machine uses yet. Dropped, it is removed in the background.
pub(super) struct PendingLink<'a> {
    shared: &'a Arc<Shared>,
    attachment: Option<Attachment>,
}

impl<'a> PendingLink<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, attachment: Attachment) -> Self {
        Self { shared, attachment: Some(attachment) }
    }

    pub(super) fn attachment(&self) -> &Attachment {
        self.attachment.as_ref().unwrap_or_else(|| unreachable!("a link has its attachment until it is kept"))
    }

    /// Removes the connection and waits for that.
    pub(super) async fn undo(mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.shared.network.detach(&attachment, Deadline::after(REMOVAL)).await;
        }
    }

    /// Hands the connection to a machine that runs.
    pub(super) fn keep(mut self) -> Attachment {
        self.attachment.take().unwrap_or_else(|| unreachable!("a link has its attachment until it is kept"))
    }
}

impl Drop for PendingLink<'_> {
    fn drop(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            let shared = Arc::clone(self.shared);
            self.shared.host.removal.spawn("detach", async move {
                shared.network.detach(&attachment, Deadline::after(REMOVAL)).await;
            });
        }
    }
}

//! A subscription that can be told to stop: from then on the server sends nothing new, and what it had sent is still given.

use async_nats::{Message, Subscriber};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

/// Messages until somebody says stop, and those that were on their way by then.
#[derive(Debug)]
pub struct Draining {
    subscription: Subscriber,
    stop: CancellationToken,
    told: bool,
}

impl Draining {
    /// A subscription that ends some time after `stop` is cancelled.
    #[must_use]
    pub fn new(subscription: Subscriber, stop: CancellationToken) -> Self {
        Self { subscription, stop, told: false }
    }

    /// The next message; nothing when all are given.
    ///
    /// # Cancel safety
    /// No message is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                message = self.subscription.next() => return message,
                () = self.stop.cancelled(), if !self.told => {
                    self.told = true;
                    if self.subscription.drain().await.is_err() {
                        // The connection is closed, and nothing comes any more.
                        return None;
                    }
                }
            }
        }
    }
}

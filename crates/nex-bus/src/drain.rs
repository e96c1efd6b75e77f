//! A subscription that can be told to stop: from then on the server sends nothing new, and what it had sent is still given.
//!
//! `Subscriber::drain` of async-nats forgets a subscription at the next thing that happens on its connection, and with it what the server
//! sent until it knew. So the server's end is closed first, then a fence goes round by the server, and only then this end is closed.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::denials::fence;

/// A number of messages that no server takes for one (nats-server reads nine digits), so that it ends the subscription at once; the client
/// keeps its end open until that many have come.
const NEVER: u64 = u64::MAX;
/// Longest wait for the fence, which a user without an inbox never sees.
const FENCE: Duration = Duration::from_secs(1);

/// Messages until somebody says stop, and those that were on their way by then.
pub struct Draining {
    client: Client,
    subscription: Subscriber,
    stop: CancellationToken,
    end: End,
}

/// How much of a subscription is closed.
enum End {
    Open,
    /// The server's; this side's too when the fence is back.
    Far(BoxFuture<'static, ()>),
    Both,
}

impl std::fmt::Debug for Draining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draining").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl Draining {
    /// A subscription of this client that ends some time after `stop` is cancelled.
    #[must_use]
    pub fn new(client: Client, subscription: Subscriber, stop: CancellationToken) -> Self {
        Self { client, subscription, stop, end: End::Open }
    }

    /// The next message; nothing when all are given.
    ///
    /// # Cancel safety
    /// No message is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match &mut self.end {
                End::Open => tokio::select! {
                    message = self.subscription.next() => return message,
                    () = self.stop.cancelled() => {
                        // When the connection is closed, nothing comes any more.
                        self.subscription.unsubscribe_after(NEVER).await.ok()?;
                        let client = self.client.clone();
                        self.end = End::Far(Box::pin(async move {
                            tokio::time::timeout(FENCE, fence(&client)).await.ok();
                        }));
                    }
                },
                End::Far(fence) => tokio::select! {
                    biased;
                    message = self.subscription.next() => return message,
                    () = fence => {
                        self.end = End::Both;
                        self.subscription.unsubscribe().await.ok()?;
                    }
                },
                End::Both => return self.subscription.next().await,
            }
        }
    }
}

//! Access of an engine to the host services.

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_protocol::host::{HostError, HostRequest};

/// Client of the host services, so that engines do not depend on NATS.
pub trait HostClient: Send + Sync {
    /// Sends a request to the node. The implementation bounds its time.
    ///
    /// # Errors
    /// The error of the service, or of the connection to it.
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>>;

    /// Tells the node that a call of the function does not end, though it was interrupted.
    fn stuck(&self, message: String) -> BoxFuture<'_, ()> {
        tracing::warn!("a call does not end: {message}");
        Box::pin(std::future::ready(()))
    }
}

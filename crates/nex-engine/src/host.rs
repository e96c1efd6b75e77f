//! The way from an engine to the host services.

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_protocol::host::{HostError, HostRequest};

/// The only way an engine reaches host services, so engines never see NATS.
pub trait HostClient: Send + Sync {
    /// Asks the node; bounded in time by the implementation.
    ///
    /// # Errors
    /// What the service or the way to it said.
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>>;
}

//! Blocking work (netlink, files) on threads that may block.

use crate::error::NetworkError;

/// Runs a function on a blocking thread.
pub(crate) async fn blocking<T, F>(function: F) -> Result<T, NetworkError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, NetworkError> + Send + 'static,
{
    tokio::task::spawn_blocking(function).await.unwrap_or(Err(NetworkError::Closed))
}

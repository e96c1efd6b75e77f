//! How services say no.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use nex_protocol::host::HostError;

/// Longest time of a call of the key-value or the object store: a little under the five seconds a function has.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(crate) fn refuse(code: u16, message: impl Into<String>) -> HostError {
    HostError { code, message: message.into() }
}

pub(crate) fn unknown_method(service: &str, method: &str, known: &str) -> HostError {
    refuse(400, format!("the host service {service} has no method '{method}': it has {known}"))
}

/// The error JetStream itself gave, wherever in the chain it is.
pub(crate) fn jetstream_code(error: &(dyn Error + 'static)) -> Option<ErrorCode> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code)
}

/// Bounds a call in time.
pub(crate) async fn in_time<T>(what: &str, call: impl Future<Output = Result<T, HostError>>) -> Result<T, HostError> {
    let late = |_elapsed| refuse(504, format!("{what}: JetStream did not answer within {} s; try again", TIMEOUT.as_secs()));
    tokio::time::timeout(TIMEOUT, call).await.map_err(late)?
}

//! A started function, and its calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_protocol::agent::invocation::Headers;
pub use nex_protocol::agent::invocation::Reply;

use crate::host::HostClient;
use crate::streaming::Streaming;

/// One call of a function.
#[derive(Clone)]
pub struct Call {
    /// The subject that triggered it.
    pub subject: String,
    /// The message's payload.
    pub payload: Bytes,
    /// The message's headers, without those of the envelope.
    pub headers: Headers,
    /// Host services of this call alone; those of its launch if absent.
    pub host: Option<Arc<dyn HostClient>>,
    /// Where its response may go piece by piece, if whoever asked takes that.
    pub streaming: Option<Streaming>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("subject", &self.subject).field("payload", &self.payload).finish_non_exhaustive()
    }
}

/// Why a call failed. The text is for the caller and the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The function threw, trapped or exited non-zero.
    #[error("{0}")]
    Failed(String),
    /// It answered that it does not do what it was asked, with a status as in HTTP, from 400.
    #[error("{message}")]
    Refused {
        /// The status.
        code: u16,
        /// Why.
        message: String,
    },
    /// It ran longer than [`crate::Limits::call_time`] and was interrupted.
    #[error("function ran longer than its limit of {} ms and was stopped (call_timeout_ms)", .0.as_millis())]
    Timeout(Duration),
    /// It needed more than [`crate::Limits::memory_bytes`].
    #[error("function needs more than its memory limit of {0} bytes (memory_mib)")]
    OutOfMemory(u64),
    /// Its reply exceeds [`crate::Limits::reply_bytes`].
    #[error("reply of {actual} bytes is over the limit of {limit} bytes (reply_bytes)")]
    ReplyTooLarge {
        /// Size of the reply, in bytes.
        actual: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Its payload exceeds [`crate::Limits::payload_bytes`].
    #[error("payload of {actual} bytes is over the limit of {limit} bytes (payload_bytes)")]
    PayloadTooLarge {
        /// Size of the payload, in bytes.
        actual: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// It made more host calls than [`crate::Limits::host_calls`].
    #[error("function made more than its limit of {0} host calls and was stopped (host_calls)")]
    TooManyHostCalls(u64),
    /// It logged more than [`crate::Limits::log_bytes`].
    #[error("function logged more than its limit of {0} bytes and was stopped (log_bytes)")]
    LogTooLong(u64),
    /// It used more processor time than [`crate::Limits::cpu_time`].
    #[error("function used more than its limit of {} ms of processor time and was stopped (cpu_ms)", .0.as_millis())]
    CpuTime(Duration),
}

/// A started function. Dropping it stops it.
pub trait Function: Send + Sync {
    /// Runs a call within the limits, in a fresh instance or context.
    ///
    /// # Errors
    /// [`CallError`]. A failed call does not affect later ones.
    fn invoke(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>>;
}

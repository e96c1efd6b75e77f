//! What runs a workload inside an agent: the contract that every engine keeps, and nothing of NATS.
//!
//! A *service* runs until it ends or is stopped ([`native`]); a *function* ([`Function`]) is called. The agent verifies the
//! artifact's digest before any engine sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_protocol::digest::Digest;
use nex_protocol::host::{HostError, HostRequest};

pub mod native;
mod output;

pub use output::{LINE_BYTES, Line, LineWriter, Output, Stream};

/// One workload to start, everything in it checked.
#[derive(Clone)]
pub struct Launch {
    /// Workload name, safe as a subject token and a file name.
    pub name: String,
    /// The artifact's file, readable by the agent, its bytes already verified against `digest`.
    pub artifact: PathBuf,
    /// SHA-256 of the artifact.
    pub digest: Digest,
    /// Arguments after the program's name.
    pub argv: Vec<String>,
    /// The workload's own environment and nothing else's.
    pub environment: BTreeMap<String, String>,
    /// What an engine compiled from this very artifact earlier, if the node still has it; a stale file is ignored.
    pub precompiled: Option<PathBuf>,
    /// Bounds on every call.
    pub limits: Limits,
    /// Where the workload's lines go.
    pub output: Output,
    /// The way to the host services.
    pub host: Arc<dyn HostClient>,
}

impl fmt::Debug for Launch {
    // The environment holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Bounds on a workload; every one is enforced.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One call may take this long; then it is interrupted and answered with [`CallError::Timeout`].
    pub call_time: Duration,
    /// Memory of one instance (function) or of the process (service), in bytes.
    pub memory_bytes: u64,
    /// Calls under way at once; further ones wait within their own deadline.
    pub concurrency: usize,
    /// A reply larger than this is an error.
    pub reply_bytes: usize,
}

/// One call of a function.
#[derive(Debug, Clone)]
pub struct Call {
    /// The concrete subject that triggered it.
    pub subject: String,
    /// The message's payload.
    pub payload: Bytes,
}

/// Why a call gave no reply. The text is for the caller and the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The function threw, trapped or exited non-zero.
    #[error("{0}")]
    Failed(String),
    /// It ran longer than [`Limits::call_time`] and was interrupted.
    #[error("function ran longer than its limit of {} ms and was stopped", .0.as_millis())]
    Timeout(Duration),
    /// It asked for more than [`Limits::memory_bytes`].
    #[error("function needs more than its memory limit of {0} bytes")]
    OutOfMemory(u64),
    /// Its reply is over [`Limits::reply_bytes`].
    #[error("reply of {actual} bytes is over the limit of {limit} bytes")]
    ReplyTooLarge {
        /// Size of the reply, in bytes.
        actual: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Why a workload could not be started. The text reaches whoever deployed it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The artifact is not what its type says: does not parse, compile or link.
    #[error("failed to validate workload: {0}")]
    Invalid(String),
    /// The artifact is fine, the host could not run it.
    #[error("failed to start workload: {doing}")]
    Host {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A started function. Dropping it stops it.
pub trait Function: Send + Sync {
    /// Runs one call to its end within the limits. Every call sees a fresh instance or context.
    ///
    /// # Errors
    /// [`CallError`]; afterwards the next call is served as if nothing had happened.
    fn invoke(&self, call: Call) -> BoxFuture<'_, Result<Bytes, CallError>>;
}

/// The only way an engine reaches host services, so engines never see NATS.
pub trait HostClient: Send + Sync {
    /// Asks the node; bounded in time by the implementation.
    ///
    /// # Errors
    /// What the service or the way to it said.
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>>;
}

//! What an engine is given to start a workload.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nex_protocol::digest::Digest;

use crate::function::{Call, CallError};
use crate::host::HostClient;
use crate::output::Output;

/// A workload to start. Everything in it is validated.
#[derive(Clone)]
pub struct Launch {
    /// Workload name, safe as a subject token and a file name.
    pub name: String,
    /// Path of the artifact; its bytes are verified against `digest`.
    pub artifact: PathBuf,
    /// Whether the artifact is called TypeScript; what is not is looked at all the same when it is no JavaScript.
    pub is_typescript: bool,
    /// SHA-256 of the artifact.
    pub digest: Digest,
    /// Arguments after the program's name.
    pub argv: Vec<String>,
    /// The workload's environment.
    pub environment: BTreeMap<String, String>,
    /// Code compiled from this artifact earlier, if the node still has it. A stale file is ignored.
    pub precompiled: Option<PathBuf>,
    /// Bounds on every call.
    pub limits: Limits,
    /// Receives the workload's output.
    pub output: Output,
    /// Access to the host services.
    pub host: Arc<dyn HostClient>,
}

impl fmt::Debug for Launch {
    // The environment holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Limits of a workload, all enforced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Time limit of a call, after which it is interrupted and answered with [`CallError::Timeout`](crate::CallError::Timeout).
    pub call_time: Duration,
    /// Memory of one instance (function) or of the process (service), in bytes.
    pub memory_bytes: u64,
    /// Maximum number of concurrent calls; further ones wait within their time limit.
    pub concurrency: usize,
    /// Maximum size of a reply, in bytes.
    pub reply_bytes: usize,
    /// Maximum size of a payload, in bytes; unbounded if absent, as those below.
    pub payload_bytes: Option<u64>,
    /// Maximum number of host calls of a call.
    pub host_calls: Option<u64>,
    /// Maximum that a call may log, in bytes.
    pub log_bytes: Option<u64>,
    /// Maximum processor time of a call.
    pub cpu_time: Option<Duration>,
}

impl Limits {
    /// Refuses a call that is over a limit before it begins.
    ///
    /// # Errors
    /// [`CallError::PayloadTooLarge`].
    pub fn admit(&self, call: &Call) -> Result<(), CallError> {
        let actual = call.payload.len() as u64;
        match self.payload_bytes {
            Some(limit) if actual > limit => Err(CallError::PayloadTooLarge { actual, limit }),
            _ => Ok(()),
        }
    }
}

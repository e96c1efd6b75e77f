//! What an engine is given to start a workload.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nex_protocol::digest::Digest;

use crate::host::HostClient;
use crate::output::Output;

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

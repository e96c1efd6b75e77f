//! Compiled WebAssembly for later starts: made in the background, one module at a time, by a jailed process that runs no guest.
//!
//! An agent compiles for itself where there is nothing yet, and what it compiled dies with it: whatever a guest does to its agent,
//! no other agent loads machine code that the two had a hand in.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nex_process::{Deadline, TaskScope};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_sandbox::SandboxId;
use nex_sandbox::process::{ProcessProvider, ToolError};
use tokio::sync::Semaphore;

use crate::artifacts::{Artifact, Artifacts};
use crate::clock;

/// Largest module kept, bytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Longest time to compile one.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Modules remembered as tried.
const MAX_REQUESTED: usize = 10_000;

/// Compiles modules that nobody has compiled yet.
#[derive(Debug)]
pub struct Compiler {
    provider: Option<ProcessProvider>,
    artifacts: Artifacts,
    /// What was asked for since the node started, so that nothing is tried twice.
    requested: Mutex<HashSet<Digest>>,
    one: Arc<Semaphore>,
    scope: TaskScope,
}

/// Nothing was kept of a module.
#[derive(Debug, thiserror::Error)]
enum NotCompiled {
    #[error(transparent)]
    Compile(#[from] ToolError),
    #[error(transparent)]
    Name(#[from] nex_sandbox::InvalidName),
    #[error("what was compiled cannot be kept")]
    Keep(#[from] io::Error),
}

impl Compiler {
    /// For a node whose sandboxes are processes.
    #[must_use]
    pub fn new(provider: Option<ProcessProvider>, artifacts: Artifacts) -> Self {
        let one = Arc::new(Semaphore::new(1));
        Self { provider, artifacts, requested: Mutex::default(), one, scope: TaskScope::new("compiler") }
    }

    /// Has a module compiled, unless it is or was tried. Returns at once; that it fails costs later starts their time and nothing else.
    pub fn request(&self, artifact: &Artifact) {
        let Some(provider) = self.provider.clone() else { return };
        if !self.is_new(artifact.digest) || self.artifacts.compiled(&artifact.digest).is_some() {
            return;
        }
        let (artifacts, artifact, one) = (self.artifacts.clone(), artifact.clone(), Arc::clone(&self.one));
        self.scope.spawn("compile", async move {
            let Ok(_turn) = one.acquire().await else { return };
            match compile(&provider, &artifacts, &artifact).await {
                Ok(()) => tracing::debug!(digest = %artifact.digest, "compiled for later starts"),
                Err(error) => tracing::info!(digest = %artifact.digest, error = chain(&error), "not compiled for later starts"),
            }
        });
    }

    fn is_new(&self, digest: Digest) -> bool {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        if requested.len() >= MAX_REQUESTED {
            requested.clear();
        }
        requested.insert(digest)
    }

    /// Kills compilers at work; what they made is not kept.
    pub async fn stop(&self) {
        self.scope.shutdown(Duration::ZERO).await;
    }
}

async fn compile(provider: &ProcessProvider, artifacts: &Artifacts, artifact: &Artifact) -> Result<(), NotCompiled> {
    let draft = artifacts.draft()?;
    let id = SandboxId::parse(WorkloadId::new(clock::unix_seconds_u32()).as_str())?;
    let output = Arc::new(draft.file()?);
    provider.compile(id, &artifact.path, (output, MAX_BYTES), Deadline::after(TIMEOUT)).await?;
    let (artifacts, digest) = (artifacts.clone(), artifact.digest);
    let kept = tokio::task::spawn_blocking(move || artifacts.keep_compiled(&digest, draft)).await;
    Ok(kept.map_err(io::Error::from).flatten()?)
}

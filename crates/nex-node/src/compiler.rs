//! Compiled WebAssembly: made by a jailed process that runs no guest, one module at a time, and kept.
//!
//! What is small an agent compiles for itself where there is nothing yet, for that is faster than a process for it; it is then compiled in the
//! background for later starts. What is large is compiled here first: it takes a processor and memory for long, which an agent's calls, and
//! those of its neighbours, need. What an agent compiled dies with it: whatever a guest does to its agent, no other agent loads machine
//! code that the two had a hand in.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nex_process::shares::Shares;
use nex_process::{Deadline, Elapsed, TaskScope};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_sandbox::SandboxId;
use nex_sandbox::process::{ProcessProvider, ToolError};
use tokio::sync::{Semaphore, oneshot};

use crate::artifacts::{Artifact, Artifacts};
use crate::clock;

/// Largest module that an agent compiles for itself, bytes.
const MAX_SMALL: u64 = 1024 * 1024;
/// Largest code kept, bytes.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Longest time to compile one.
const TIMEOUT: Duration = Duration::from_secs(240);
/// Memory of a compiler: what it needs itself, what it needs for each byte of a module, and at most.
const MEMORY: u64 = 256 * 1024 * 1024;
const MEMORY_FOR_A_BYTE: u64 = 64;
const MAX_MEMORY: u64 = 4 * 1024 * 1024 * 1024;
/// Modules remembered as tried.
const MAX_REQUESTED: usize = 10_000;

/// A large module has no code here.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It cannot be compiled.
    #[error("{0}")]
    Failed(String),
    /// That takes too much memory.
    #[error(
        "compiling the module takes more than the {0} MiB of memory that a module of its size gets; next: build it smaller, without debug information"
    )]
    OutOfMemory(u64),
    /// There is no process for it.
    #[error(
        "the compiler could not be started: {0}; next: see the node's log, and what `nex node preflight` says of its sandbox"
    )]
    Start(String),
    /// What was compiled cannot be kept.
    #[error("what was compiled cannot be kept; next: look for room in the state directory")]
    Keep(#[from] io::Error),
    /// There was no time.
    #[error("the module was not compiled in time; next: deploy it again: it is compiled meanwhile")]
    Late,
}

impl From<Elapsed> for CompileError {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}

/// Compiles modules that nobody has compiled yet. A module that somebody waits for is compiled to its end, whether he waits that long or not.
#[derive(Debug)]
pub struct Compiler {
    work: Option<Arc<Work>>,
    /// What was asked for since the node started, so that nothing is tried twice.
    requested: Mutex<HashSet<Digest>>,
    /// The same module twice at once: the second waits for the first.
    alone: Shares,
    scope: TaskScope,
}

/// What compiling needs.
#[derive(Debug)]
struct Work {
    provider: ProcessProvider,
    artifacts: Artifacts,
    one: Semaphore,
}

impl Compiler {
    /// For a node whose sandboxes are processes; others compile where they run.
    #[must_use]
    pub fn new(provider: Option<ProcessProvider>, artifacts: Artifacts) -> Self {
        let work = provider.map(|provider| Arc::new(Work { provider, artifacts, one: Semaphore::new(1) }));
        Self { work, requested: Mutex::default(), alone: Shares::new(1), scope: TaskScope::new("compiler") }
    }

    /// Has the code of a large module made before an agent is asked to run it.
    ///
    /// # Errors
    /// [`CompileError`].
    pub async fn prepare(&self, artifact: &Artifact, by: Deadline) -> Result<(), CompileError> {
        let Some(work) = self.work.as_ref().filter(|_| artifact.bytes > MAX_SMALL) else { return Ok(()) };
        let alone = by.bound(self.alone.take(&artifact.digest.to_string())).await?;
        if work.artifacts.compiled(&artifact.digest).is_some() {
            return Ok(());
        }
        let (tell, compiled) = oneshot::channel();
        let (work, artifact) = (Arc::clone(work), artifact.clone());
        self.scope.spawn("compile", async move {
            let compiled = work.compile(&artifact).await;
            drop(alone);
            // Whoever waited may have given up.
            drop(tell.send(compiled));
        });
        by.bound(compiled).await?.unwrap_or_else(|_stopped| Err(CompileError::Start("the node is stopping".to_owned())))
    }

    /// Has a small module compiled for later starts, unless it is or was tried. Returns at once; that it fails costs those their time and
    /// nothing else.
    pub fn request(&self, artifact: &Artifact) {
        let Some(work) = self.work.clone() else { return };
        if !self.is_new(artifact.digest) || work.artifacts.compiled(&artifact.digest).is_some() {
            return;
        }
        let artifact = artifact.clone();
        self.scope.spawn("compile", async move {
            match work.compile(&artifact).await {
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

impl Work {
    async fn compile(&self, artifact: &Artifact) -> Result<(), CompileError> {
        let by = Deadline::after(TIMEOUT);
        let _turn = by.bound(self.one.acquire()).await?;
        let draft = self.artifacts.draft()?;
        let id = SandboxId::parse(WorkloadId::new(clock::unix_seconds_u32()).as_str());
        let id = id.map_err(|error| CompileError::Start(error.to_string()))?;
        let (output, memory) = (Arc::new(draft.file()?), memory_for(artifact.bytes));
        match self.provider.compile(id, &artifact.path, (output, MAX_BYTES, memory), by).await {
            Ok(()) => {}
            Err(ToolError::Late(_)) => return Err(CompileError::Late),
            Err(ToolError::Failed(report)) if report.out_of_memory => return Err(CompileError::OutOfMemory(memory >> 20)),
            Err(ToolError::Failed(report)) => return Err(CompileError::Failed(report.reason())),
            Err(error @ ToolError::Create(_)) => return Err(CompileError::Start(chain(&error))),
        }
        let (artifacts, digest) = (self.artifacts.clone(), artifact.digest);
        let kept = tokio::task::spawn_blocking(move || artifacts.keep_compiled(&digest, draft)).await;
        Ok(kept.map_err(io::Error::from).flatten()?)
    }
}

fn memory_for(bytes: u64) -> u64 {
    bytes.saturating_mul(MEMORY_FOR_A_BYTE).saturating_add(MEMORY).min(MAX_MEMORY)
}

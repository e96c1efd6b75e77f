//! Roots of workloads that come as images: built once per image by a jailed process, kept in the artifact cache, mounted by the jail of
//! the workload.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nex_process::shares::Shares;
use nex_process::{Deadline, Elapsed, TaskScope};
use nex_protocol::envelope::chain;
use nex_protocol::id::WorkloadId;
use nex_sandbox::SandboxId;
use nex_sandbox::process::{ImageFiles, ProcessProvider, ToolError};
use tokio::sync::{Semaphore, oneshot};

use crate::artifacts::{Artifact, Artifacts};
use crate::clock;

/// Images built at once: each may take a processor and some memory.
const MAX_BUILDS: usize = 2;
/// Longest time to build one.
const TIMEOUT: Duration = Duration::from_secs(240);

/// An image has no root here.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// These sandboxes take none.
    #[error("this node runs no images: {0}")]
    Unsupported(String),
    /// It cannot be built.
    #[error("the image cannot be made a root: {0}")]
    Build(String),
    /// What was built cannot be kept.
    #[error("the image's root cannot be kept; next: look for room in the state directory")]
    Keep(#[from] io::Error),
    /// There was no time.
    #[error("the image's root was not built in time; next: deploy it again: it is built meanwhile")]
    Late,
}

impl From<Elapsed> for ImageError {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}

/// Builds roots and finds those that are built. A build goes on when nobody waits for it any more: whoever asks next finds it done.
#[derive(Debug)]
pub struct Images {
    builder: Result<Arc<Builder>, String>,
    artifacts: Artifacts,
    /// The same image twice at once: the second waits for the first.
    alone: Shares,
    /// Owner of the builds.
    scope: TaskScope,
}

/// What a build needs.
#[derive(Debug)]
struct Builder {
    provider: ProcessProvider,
    artifacts: Artifacts,
    /// Largest root, bytes.
    most_bytes: u64,
    turns: Semaphore,
}

impl Images {
    /// For a node whose sandboxes take images, or with why they do not.
    #[must_use]
    pub fn new(provider: Result<ProcessProvider, String>, artifacts: Artifacts, most_bytes: u64) -> Self {
        let turns = Semaphore::new(MAX_BUILDS);
        let builder = provider.map(|provider| Arc::new(Builder { provider, artifacts: artifacts.clone(), most_bytes, turns }));
        Self { builder, artifacts, alone: Shares::new(1), scope: TaskScope::new("images") }
    }

    /// The root of an image, from the cache or built now.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is left of a build that failed.
    pub async fn root(&self, artifact: &Artifact, by: Deadline) -> Result<PathBuf, ImageError> {
        let builder = self.builder.as_ref().map_err(|why| ImageError::Unsupported(why.clone()))?;
        let alone = by.bound(self.alone.take(&artifact.digest.to_string())).await?;
        if let Some(root) = self.artifacts.image_root(&artifact.digest) {
            return Ok(root);
        }
        let (tell, built) = oneshot::channel();
        let (builder, artifact) = (Arc::clone(builder), artifact.clone());
        self.scope.spawn("image", async move {
            let root = builder.build(&artifact).await;
            drop(alone);
            // Whoever waited may have given up.
            drop(tell.send(root));
        });
        by.bound(built).await?.unwrap_or_else(|_stopped| Err(ImageError::Build("the node is stopping".to_owned())))
    }

    /// Ends builds at work; what they made is not kept.
    pub async fn stop(&self) {
        self.scope.shutdown(Duration::ZERO).await;
    }
}

impl Builder {
    async fn build(&self, artifact: &Artifact) -> Result<PathBuf, ImageError> {
        let by = Deadline::after(TIMEOUT);
        let _turn = by.bound(self.turns.acquire()).await?;
        let (root, spool) = (self.artifacts.draft()?, self.artifacts.draft()?);
        let id = SandboxId::parse(WorkloadId::new(clock::unix_seconds_u32()).as_str());
        let id = id.map_err(|error| ImageError::Build(error.to_string()))?;
        let files = ImageFiles { root: root.file()?, max_bytes: self.most_bytes, spool: spool.file()? };
        match self.provider.build_image(id, &artifact.path, files, by).await {
            Ok(()) => {}
            Err(ToolError::Late(_)) => return Err(ImageError::Late),
            Err(ToolError::Failed(report)) => return Err(ImageError::Build(report.reason())),
            Err(error @ ToolError::Create(_)) => return Err(ImageError::Build(chain(&error))),
        }
        drop(spool);
        let (artifacts, digest) = (self.artifacts.clone(), artifact.digest);
        let kept = tokio::task::spawn_blocking(move || artifacts.keep_image_root(&digest, root)).await;
        Ok(kept.map_err(io::Error::from).flatten()?)
    }
}

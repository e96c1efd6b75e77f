//! Makes one file of another in a jail of its own, without a network: by the agent's program in another role. It compiles modules and
//! builds roots of images, and runs nothing of either.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nex_process::{Deadline, Elapsed};

use super::create::{self, Role};
use super::provider::ProcessProvider;
use crate::error::CreateError;
use crate::id::SandboxId;
use crate::report::ExitReport;
use crate::sandbox::Sandbox as _;
use crate::spec::SandboxSpec;

/// Argument of an agent that compiles.
const COMPILE: &str = "--compile";
/// Argument of an agent that builds the root of an image; the number of the descriptor for contents follows.
const IMAGE: &str = "--image";
/// Memory for the names of an image's files.
const IMAGE_MEMORY: u64 = 768 << 20;

/// Nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is no jail for it.
    #[error("the tool could not be started")]
    Create(#[from] CreateError),
    /// It ended without success: what it was given is of no use, or what it made is too large.
    #[error("the tool ended: {0}")]
    Failed(ExitReport),
    /// It took too long.
    #[error("the tool did not end in time")]
    Late(#[from] Elapsed),
}

/// What a tool is given.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) argument: &'static str,
    /// What it reads, as `/artifact/artifact`.
    pub(super) artifact: PathBuf,
    /// Its standard output.
    pub(super) output: Arc<File>,
    /// A file that it may write besides, by the number of its descriptor.
    pub(super) spool: Option<Arc<OwnedFd>>,
    /// Most bytes of a file that it writes.
    pub(super) max_bytes: u64,
    /// Its memory; that of an agent if absent.
    pub(super) memory_bytes: Option<u64>,
}

/// Where the root of an image is built: empty files.
#[derive(Debug)]
pub struct ImageFiles {
    /// For the root.
    pub root: File,
    /// Its largest size, bytes.
    pub max_bytes: u64,
    /// For the contents of files on their way, on a disk.
    pub spool: File,
}

impl ProcessProvider {
    /// Compiles an artifact into a file of at most that many bytes, with so much memory. When this returns, the file is complete and the
    /// compiler has exited.
    ///
    /// # Errors
    /// [`ToolError`]; the content of the file is then invalid.
    pub async fn compile(
        &self,
        id: SandboxId,
        artifact: &Path,
        (output, max_bytes, memory_bytes): (Arc<File>, u64, u64),
        by: Deadline,
    ) -> Result<(), ToolError> {
        let (artifact, memory_bytes) = (artifact.to_owned(), Some(memory_bytes));
        let tool = Tool { argument: COMPILE, artifact, output, spool: None, max_bytes, memory_bytes };
        self.run_tool(id, tool, by).await
    }

    /// Builds the root of the image in an archive. When this returns, the root is complete and its builder has exited.
    ///
    /// # Errors
    /// [`ToolError`]; the content of the file is then invalid.
    pub async fn build_image(&self, id: SandboxId, archive: &Path, files: ImageFiles, by: Deadline) -> Result<(), ToolError> {
        let ImageFiles { root, max_bytes, spool } = files;
        let (artifact, spool) = (archive.to_owned(), Some(Arc::new(spool.into())));
        let tool = Tool { argument: IMAGE, artifact, output: Arc::new(root), spool, max_bytes, memory_bytes: Some(IMAGE_MEMORY) };
        self.run_tool(id, tool, by).await
    }

    async fn run_tool(&self, id: SandboxId, tool: Tool, by: Deadline) -> Result<(), ToolError> {
        let spec = SandboxSpec { id, identity: b"{}".to_vec(), size: None, memory_mib: None, image: None };
        let sandbox = create::create(&self.shared, spec, Role::Tool(tool), by).await?;
        let ended = by.bound(sandbox.exited()).await;
        sandbox.stop(Duration::ZERO).await;
        let report = ended?;
        if report.exit.is_success() { Ok(()) } else { Err(ToolError::Failed(report)) }
    }
}

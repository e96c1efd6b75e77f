//! Compiles an artifact in a jail of its own: by the agent's program in another role, which runs nothing of what it compiles.

use std::fs::File;
use std::path::Path;
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

/// Nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// There is no jail for it.
    #[error("the compiler could not be started")]
    Create(#[from] CreateError),
    /// It ended without success: what is no module cannot be compiled, and what is compiled must be small enough.
    #[error("the compiler ended: {0}")]
    Failed(ExitReport),
    /// It took too long.
    #[error("the compiler did not end in time")]
    Late(#[from] Elapsed),
}

impl ProcessProvider {
    /// Compiles an artifact into a file of at most that many bytes. When this returns, the file is complete and the compiler has exited.
    ///
    /// # Errors
    /// [`CompileError`]; the content of the file is then invalid.
    pub async fn compile(
        &self,
        id: SandboxId,
        artifact: &Path,
        (output, max_bytes): (Arc<File>, u64),
        by: Deadline,
    ) -> Result<(), CompileError> {
        let spec = SandboxSpec { id, identity: b"{}".to_vec(), size: None };
        let role = Role::Compiler { artifact: artifact.to_owned(), output, max_bytes };
        let sandbox = create::create(&self.shared, spec, role, by).await?;
        let ended = by.bound(sandbox.exited()).await;
        sandbox.stop(Duration::ZERO).await;
        let report = ended?;
        if report.exit.is_success() { Ok(()) } else { Err(CompileError::Failed(report)) }
    }
}

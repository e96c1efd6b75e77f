//! A function's script: the source and everything else an isolate needs, shared by all workers.

use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use nex_engine::{HostClient, Launch, Limits, Output, StartError};
use tokio::runtime::Handle;

use crate::image::Restore;

/// Largest source accepted, in bytes.
pub const MAX_SOURCE_BYTES: usize = 4 * 1024 * 1024;

/// Why an artifact is not a script.
#[derive(Debug, thiserror::Error)]
enum ScriptError {
    #[error("source file ({0} bytes) exceeds maximum of {MAX_SOURCE_BYTES} bytes")]
    TooLarge(u64),
    #[error("failed to compile source for execution: not a text: {0}")]
    NotText(std::string::FromUtf8Error),
    #[error("failed to compile source for execution: not a text: NUL byte at offset {}", .0.nul_position())]
    Nul(std::ffi::NulError),
    #[error("failed to compile source for execution: {0}")]
    Environment(serde_json::Error),
}

impl From<ScriptError> for StartError {
    fn from(error: ScriptError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// How the source is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceType {
    /// A classic script; its completion value is the function.
    Script,
    /// An ES module; its default export is the function.
    Module,
}

/// A script as it was deployed.
pub(crate) struct Script {
    /// Name of the source in error messages.
    pub(crate) file: CString,
    pub(crate) source: CString,
    /// Whether a line begins like one of a module's.
    pub(crate) has_exports: bool,
    /// Set by the first isolate.
    pub(crate) source_type: OnceLock<SourceType>,
    /// The environment as a JSON object.
    pub(crate) environment: String,
    pub(crate) limits: Limits,
    pub(crate) output: Output,
    pub(crate) host: Arc<dyn HostClient>,
    pub(crate) restore: Restore,
    /// Where host calls run while a worker waits for them.
    pub(crate) handle: Handle,
}

impl Script {
    /// Reads and validates the source.
    pub(crate) fn read(launch: Launch, restore: Restore, handle: Handle) -> Result<Self, StartError> {
        let reading = |source| StartError::host(format!("read {}", launch.artifact.display()), source);
        let size = std::fs::metadata(&launch.artifact).map_err(reading)?.len();
        if size > MAX_SOURCE_BYTES as u64 {
            return Err(ScriptError::TooLarge(size).into());
        }
        let bytes = std::fs::read(&launch.artifact).map_err(reading)?;
        let source = String::from_utf8(bytes).map_err(ScriptError::NotText)?;
        let has_exports =
            source.lines().any(|line| ["export ", "import "].iter().any(|word| line.trim_start().starts_with(word)));
        let source = CString::new(source).map_err(ScriptError::Nul)?;
        let environment = serde_json::to_string(&launch.environment).map_err(ScriptError::Environment)?;
        Ok(Self {
            file: CString::new(format!("{}.js", launch.name)).map_err(ScriptError::Nul)?,
            source,
            has_exports,
            source_type: OnceLock::new(),
            environment,
            limits: launch.limits,
            output: launch.output,
            host: launch.host,
            restore,
            handle,
        })
    }
}

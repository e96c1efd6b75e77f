//! A function's script: the source and everything else an isolate needs, shared by all workers.

use std::sync::{Arc, OnceLock};

use nex_engine::{HostClient, Launch, Limits, Output, StartError};
use tokio::runtime::Handle;

use crate::code::Code;

/// Largest source accepted, in bytes.
pub const MAX_SOURCE_BYTES: usize = 4 * 1024 * 1024;

/// Why an artifact is not a script.
#[derive(Debug, thiserror::Error)]
enum ScriptError {
    #[error("source file ({0} bytes) exceeds maximum of {MAX_SOURCE_BYTES} bytes")]
    TooLarge(u64),
    #[error("failed to compile source for execution: not a text: {0}")]
    NotText(std::string::FromUtf8Error),
    #[error("failed to compile source for execution: not a text: NUL byte at offset {0}")]
    Nul(usize),
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
    pub(crate) file: String,
    pub(crate) source: String,
    /// Set by the first isolate.
    pub(crate) source_type: OnceLock<SourceType>,
    /// A module's bytecode; a script is parsed every time.
    pub(crate) code: Code,
    /// The environment as a JSON object.
    pub(crate) environment: String,
    pub(crate) limits: Limits,
    pub(crate) output: Output,
    pub(crate) host: Arc<dyn HostClient>,
    /// Where host calls run while a worker waits for them.
    pub(crate) handle: Handle,
}

impl Script {
    /// Reads and validates the source.
    pub(crate) fn read(launch: Launch, handle: Handle) -> Result<Self, StartError> {
        let reading = |source| StartError::host(format!("read {}", launch.artifact.display()), source);
        let size = std::fs::metadata(&launch.artifact).map_err(reading)?.len();
        if size > MAX_SOURCE_BYTES as u64 {
            return Err(ScriptError::TooLarge(size).into());
        }
        let bytes = std::fs::read(&launch.artifact).map_err(reading)?;
        let source = String::from_utf8(bytes).map_err(ScriptError::NotText)?;
        if let Some(at) = source.find('\0') {
            return Err(ScriptError::Nul(at).into());
        }
        let environment = serde_json::to_string(&launch.environment).map_err(ScriptError::Environment)?;
        Ok(Self {
            file: format!("{}.js", launch.name.replace('\0', "")),
            source,
            source_type: OnceLock::new(),
            code: Code::new(),
            environment,
            limits: launch.limits,
            output: launch.output,
            host: launch.host,
            handle,
        })
    }
}

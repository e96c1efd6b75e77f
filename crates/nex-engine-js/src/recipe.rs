//! Everything an isolate is made from, shared by all workers of a function.

use std::sync::{Arc, OnceLock};

use nex_engine::{HostClient, Launch, Limits, Output, StartError};
use tokio::runtime::Handle;

use crate::code::Code;

/// Largest source accepted, in bytes.
pub const SOURCE_BYTES: usize = 4 * 1024 * 1024;

/// How a source is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A classic script; its completion value is the function.
    Script,
    /// An ES module; its default export is the function.
    Module,
}

pub(crate) struct Recipe {
    /// Name of the source in error messages.
    pub(crate) file: String,
    pub(crate) source: String,
    /// Found out by the first isolate.
    pub(crate) kind: OnceLock<Kind>,
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

impl Recipe {
    pub(crate) fn read(launch: Launch, handle: Handle) -> Result<Self, StartError> {
        let reading = |source| StartError::host(format!("read {}", launch.artifact.display()), source);
        let size = std::fs::metadata(&launch.artifact).map_err(reading)?.len();
        if size > SOURCE_BYTES as u64 {
            return Err(StartError::Invalid(format!("source file ({size} bytes) exceeds maximum of {SOURCE_BYTES} bytes")));
        }
        let bytes = std::fs::read(&launch.artifact).map_err(reading)?;
        let invalid = |reason: String| StartError::Invalid(format!("failed to compile source for execution: {reason}"));
        let source = String::from_utf8(bytes).map_err(|error| invalid(format!("not a text: {error}")))?;
        if let Some(at) = source.find('\0') {
            return Err(invalid(format!("not a text: NUL byte at offset {at}")));
        }
        let environment = serde_json::to_string(&launch.environment).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            file: format!("{}.js", launch.name.replace('\0', "")),
            source,
            kind: OnceLock::new(),
            code: Code::new(),
            environment,
            limits: launch.limits,
            output: launch.output,
            host: launch.host,
            handle,
        })
    }
}

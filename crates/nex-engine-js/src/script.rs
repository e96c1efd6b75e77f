//! A function's script: the source and everything else an isolate needs, shared by all workers.

use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use nex_engine::{HostClient, Launch, Limits, Output, StartError};
use tokio::runtime::Handle;

use crate::image::Restore;
use crate::source_map::SourceMap;
use crate::typescript::{self, StripError};

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
    TypeScript(StripError),
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

/// What is evaluated.
pub(crate) struct Source {
    /// Its name in error messages.
    pub(crate) file: CString,
    pub(crate) text: CString,
    /// Whether a line begins like one of a module's.
    pub(crate) has_exports: bool,
}

impl Source {
    fn new(file: String, text: String) -> Result<Self, ScriptError> {
        let has_exports = text.lines().any(|line| ["export ", "import "].iter().any(|word| line.trim_start().starts_with(word)));
        let file = CString::new(file).map_err(ScriptError::Nul)?;
        Ok(Self { file, text: CString::new(text).map_err(ScriptError::Nul)?, has_exports })
    }

    fn is_typescript(&self) -> bool {
        self.file.to_bytes().ends_with(b".ts")
    }

    /// The source of a TypeScript file.
    fn of_typescript(name: &str, text: &str) -> Result<Self, StripError> {
        let file = format!("{name}.ts");
        let stripped = typescript::strip(text, &file)?;
        Self::new(file, stripped).map_err(|error| StripError::Syntax(error.to_string()))
    }
}

/// A script as it was deployed.
pub(crate) struct Script {
    name: String,
    source: Source,
    /// Set by the first isolate where the source, which was not called TypeScript, is that and no JavaScript.
    stripped: OnceLock<Source>,
    /// Set by the first error.
    source_map: OnceLock<Option<SourceMap>>,
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
        let source = if launch.is_typescript {
            Source::of_typescript(&launch.name, &source).map_err(ScriptError::TypeScript)?
        } else {
            Source::new(format!("{}.js", launch.name), source)?
        };
        let environment = serde_json::to_string(&launch.environment).map_err(ScriptError::Environment)?;
        Ok(Self {
            name: launch.name,
            source,
            stripped: OnceLock::new(),
            source_map: OnceLock::new(),
            source_type: OnceLock::new(),
            environment,
            limits: launch.limits,
            output: launch.output,
            host: launch.host,
            restore,
            handle,
        })
    }

    /// What is evaluated.
    pub(crate) fn source(&self) -> &Source {
        self.stripped.get().unwrap_or(&self.source)
    }

    /// The text of an error, with the places where somebody wrote what failed, if the source says where that was.
    pub(crate) fn mapped(&self, text: String) -> String {
        let source = self.source();
        let map = self.source_map.get_or_init(|| SourceMap::read(source.text.to_str().unwrap_or_default()));
        match map {
            Some(map) => map.mapped(source.file.to_str().unwrap_or_default(), &text),
            None => text,
        }
    }

    /// Takes what is no JavaScript for TypeScript, once.
    ///
    /// # Errors
    /// Nothing, if it is none either or was taken for it before; else what it has that needs code.
    pub(crate) fn take_for_typescript(&self) -> Result<(), Option<StripError>> {
        if self.source.is_typescript() || self.stripped.get().is_some() {
            return Err(None);
        }
        let text = self.source.text.to_str().unwrap_or_default();
        match Source::of_typescript(&self.name, text) {
            Ok(source) if source.text == self.source.text => Err(None),
            Ok(source) => self.stripped.set(source).map_err(|_set| None),
            Err(StripError::Syntax(_)) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }
}

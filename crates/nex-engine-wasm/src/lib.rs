//! WebAssembly functions: WASI commands, as core modules or components, and components that handle requests or messages; a fresh instance for every
//! call.
//!
//! A call of a command gets `argv = ["nexfunction", subject]`, its payload on standard input and the workload's environment; its standard
//! output is the reply. It has no files and no network; the host services it reaches by `wasi` (components) or `imports` (core modules).
//!
//! Wasmtime is set up by the first [`Engine::start`], so that an idle agent stays small.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nex_engine::{Launch, StartError};

mod cpu;
mod function;
mod held;
mod host;
mod imports;
mod load;
mod outgoing;
mod pipe;
mod runtime;
mod state;
mod ticker;
mod wasi;

pub use function::WasmFunction;
pub use runtime::EngineConfig;
use runtime::Runtime;

/// One per process; functions share its instance pool.
#[derive(Default)]
pub struct Engine {
    config: EngineConfig,
    runtime: Arc<Mutex<Option<Arc<Runtime>>>>,
}

/// A started function.
#[derive(Debug)]
pub struct Started {
    /// The function.
    pub function: WasmFunction,
    /// Whether [`Launch::precompiled`] was used.
    pub precompiled: bool,
}

impl Engine {
    /// Creates an engine without setting up Wasmtime.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self { config, runtime: Arc::default() }
    }

    /// Sets up Wasmtime now instead of at the first start, for callers that must change the state of the process around it.
    ///
    /// # Errors
    /// [`StartError::Host`] when the engine cannot be set up.
    pub fn prepare(&self) -> Result<(), StartError> {
        shared(&self.runtime, self.config).map(|_runtime| ())
    }

    /// Compiles (or loads) and links the module, off the async threads.
    ///
    /// # Errors
    /// [`StartError::Invalid`] when the artifact is no WASI command, [`StartError::Host`] when the engine cannot be set up.
    pub async fn start(&self, launch: Launch) -> Result<Started, StartError> {
        let config = self.config;
        let runtime = Arc::clone(&self.runtime);
        let started = tokio::task::spawn_blocking(move || {
            let runtime = shared(&runtime, config)?;
            let loaded = load::load(&runtime, &launch)?;
            Ok(Started { function: WasmFunction::new(runtime, loaded.program, launch), precompiled: loaded.precompiled })
        });
        started.await.map_err(|error| StartError::host("compile the module", std::io::Error::other(error)))?
    }
}

/// Compiles a module or component into what [`Launch::precompiled`] takes. Blocks; nothing of the guest runs.
///
/// # Errors
/// [`StartError::Invalid`] when the artifact is no WebAssembly, [`StartError::Host`] when the compiler cannot be set up.
pub fn compile(artifact: &Path) -> Result<Vec<u8>, StartError> {
    let engine = runtime::compiler().map_err(|error| StartError::host("set up the wasm compiler", error))?;
    load::precompile(&engine, artifact)
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

fn shared(slot: &Mutex<Option<Arc<Runtime>>>, config: EngineConfig) -> Result<Arc<Runtime>, StartError> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*slot {
        return Ok(Arc::clone(runtime));
    }
    let runtime =
        Runtime::new(config).map_err(|error| StartError::host("set up the wasm engine", std::io::Error::other(error)))?;
    Ok(Arc::clone(slot.insert(Arc::new(runtime))))
}

//! The engines of an agent: set up for its first function, shared by all of them, and where their long calls compute.

use std::sync::{Mutex, OnceLock, PoisonError};

use nex_engine::StartError;
use nex_engine_js::Restore;
use nex_engine_wasm::{Engine, EngineConfig};
use nex_process::confinement::Confinement;
use nex_process::jail;
use tokio::runtime::{Builder, Handle, Runtime};

/// Instances of WebAssembly at once where several functions share them.
const SHARED_INSTANCES: u32 = 256;
/// The most that one function has.
const MAX_INSTANCES: u32 = 1_024;

/// Where calls go on that have computed for a moment, apart from those who read and write messages. Lives as long as the process: a runtime
/// cannot be dropped by a task.
static COMPUTING: OnceLock<Option<Runtime>> = OnceLock::new();

/// What an agent's functions run on.
#[derive(Default)]
pub(crate) struct Engines {
    is_prepared: Mutex<bool>,
    restore: OnceLock<Restore>,
    wasm: OnceLock<Engine>,
}

impl Engines {
    /// Does what needs `/proc`, which is out of sight otherwise: before the first function is there, for all that may come after it.
    pub(crate) fn prepare(&self, confinement: &Confinement, is_shared: bool, concurrency: usize) -> Result<(), StartError> {
        // Both engines open /proc/self/pagemap, to find the pages that a call has written.
        let mut is_prepared = self.is_prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if is_shared && !*is_prepared {
            jail::while_visible(confinement, || self.wasm(true, concurrency).prepare())?;
            self.restore.get_or_init(|| jail::while_visible(confinement, nex_engine_js::prepare));
            *is_prepared = true;
        }
        Ok(())
    }

    /// How memory of JavaScript is put back.
    pub(crate) fn restore(&self, confinement: &Confinement) -> Restore {
        *self.restore.get_or_init(|| jail::while_visible(confinement, nex_engine_js::prepare))
    }

    /// The engine of WebAssembly, prepared.
    pub(crate) fn prepared_wasm(
        &self,
        confinement: &Confinement,
        is_shared: bool,
        concurrency: usize,
    ) -> Result<&Engine, StartError> {
        let is_new = self.wasm.get().is_none();
        let engine = self.wasm(is_shared, concurrency);
        if is_new {
            jail::while_visible(confinement, || engine.prepare())?;
        }
        Ok(engine)
    }

    fn wasm(&self, is_shared: bool, concurrency: usize) -> &Engine {
        self.wasm.get_or_init(|| {
            let own = u32::try_from(concurrency).unwrap_or(u32::MAX).clamp(1, MAX_INSTANCES);
            Engine::new(EngineConfig { instances: if is_shared { SHARED_INSTANCES } else { own } })
        })
    }
}

/// Where long calls compute; nowhere in particular if there are no threads for it.
pub(crate) fn computing() -> Option<Handle> {
    let make =
        || Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).thread_name("compute").enable_time().build();
    COMPUTING.get_or_init(|| make().ok()).as_ref().map(|runtime| runtime.handle().clone())
}

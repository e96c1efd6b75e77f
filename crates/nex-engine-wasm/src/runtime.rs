//! The Wasmtime runtime of a process: one configuration, one instance pool, one linker for WASI of each kind that is run.

use std::io;
use std::sync::OnceLock;

use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, component};

use crate::state::State;
use crate::ticker::Ticker;
use crate::{imports, wasi};

/// Bytes of an instance's memory that are zeroed for the next instance instead of being returned to the kernel.
const KEEP_RESIDENT_BYTES: usize = 256 * 1024;
/// Memories per component; common toolchains emit one.
const MAX_MEMORIES_PER_COMPONENT: u32 = 4;
/// Core instances per component; an adapted command has about five.
const MAX_CORE_INSTANCES_PER_COMPONENT: u32 = 32;

/// Limits shared by all functions of a process.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Maximum number of live instances; further calls wait. An instance reserves address space; memory is used as it is touched.
    pub instances: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { instances: 64 }
    }
}

pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    /// Made for the first that is linked: most agents run functions of one kind.
    modules: OnceLock<Result<Linker<State>, String>>,
    components: OnceLock<Result<component::Linker<State>, String>>,
    pub(crate) ticker: Ticker,
    /// One permit per slot of the instance pool.
    pub(crate) slots: Semaphore,
}

impl Runtime {
    pub(crate) fn new(config: EngineConfig) -> io::Result<Self> {
        let instances = config.instances.max(1);
        let engine = Engine::new(&settings(Some(instances))).or_else(|error| {
            // The address space is limited: slow calls are better than none.
            tracing::warn!(error = format!("{error:#}"), "no instance pool; every call maps its own memory");
            Engine::new(&settings(None)).map_err(io::Error::other)
        })?;
        let ticker = Ticker::start(&engine)?;
        let (modules, components) = (OnceLock::new(), OnceLock::new());
        Ok(Self { engine, modules, components, ticker, slots: Semaphore::new(instances as usize) })
    }

    /// Resolves the imports of core modules.
    ///
    /// # Errors
    /// When Wasmtime does not take what is defined.
    pub(crate) fn modules(&self) -> io::Result<&Linker<State>> {
        let define = || -> wasmtime::Result<_> {
            let mut linker = Linker::new(&self.engine);
            wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
            imports::add_to_linker(&mut linker)?;
            Ok(linker)
        };
        made(self.modules.get_or_init(|| define().map_err(|error| format!("{error:#}"))))
    }

    /// Resolves the imports of components.
    ///
    /// # Errors
    /// When Wasmtime does not take what is defined.
    pub(crate) fn components(&self) -> io::Result<&component::Linker<State>> {
        let define = || -> wasmtime::Result<_> {
            let mut linker = component::Linker::new(&self.engine);
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
            wasi::add_to_linker(&mut linker)?;
            Ok(linker)
        };
        made(self.components.get_or_init(|| define().map_err(|error| format!("{error:#}"))))
    }
}

fn made<T>(linker: &Result<T, String>) -> io::Result<&T> {
    linker.as_ref().map_err(|why| io::Error::other(why.clone()))
}

/// A compiler for engines of every size: what it makes fits them all.
pub(crate) fn compiler() -> io::Result<Engine> {
    Engine::new(&settings(None)).map_err(io::Error::other)
}

fn settings(pooled: Option<u32>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // A store serves one call; support for concurrent ones would slow each of them.
    config.concurrency_support(false);
    // An agent compiles little, beside calls that wait for its processors.
    config.parallel_compilation(pooled.is_none());
    if let Some(instances) = pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES_PER_COMPONENT))
            .total_memories(instances.saturating_mul(2))
            .total_tables(instances.saturating_mul(4))
            .total_stacks(instances)
            .max_memories_per_component(MAX_MEMORIES_PER_COMPONENT)
            .max_core_instances_per_component(MAX_CORE_INSTANCES_PER_COMPONENT)
            .max_tables_per_module(4)
            .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
            .table_keep_resident(KEEP_RESIDENT_BYTES)
            // Zero only the pages that a call wrote, where the kernel reports them (Linux 6.7).
            .pagemap_scan(Enabled::Auto)
            .max_unused_warm_slots(instances.min(4));
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

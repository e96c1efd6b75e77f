//! Wasmtime as this process uses it: one configuration, one instance pool, the host's half of WASI linked once.

use std::io;

use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, component};

use crate::EngineConfig;
use crate::state::State;
use crate::ticker::Ticker;

/// How much of an instance's memory is zeroed in place for the next one instead of being given back to the kernel.
const KEEP_RESIDENT: usize = 256 * 1024;
/// Memories one component may bring; those of ordinary toolchains have one.
const MEMORIES_PER_COMPONENT: u32 = 4;
/// Core instances one component may bring; an adapted command has about five.
const CORE_INSTANCES_PER_COMPONENT: u32 = 32;

pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) modules: Linker<State>,
    pub(crate) components: component::Linker<State>,
    pub(crate) ticker: Ticker,
    /// A place in the pool for every call under way.
    pub(crate) places: Semaphore,
}

impl Runtime {
    pub(crate) fn new(config: EngineConfig) -> io::Result<Self> {
        let instances = config.instances.max(1);
        let engine = Engine::new(&settings(Some(instances))).or_else(|error| {
            // A low limit on address space: slower calls are better than none.
            tracing::warn!(error = format!("{error:#}"), "no instance pool, every call maps its own memory");
            Engine::new(&settings(None)).map_err(io::Error::other)
        })?;
        let mut modules = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, |state: &mut State| &mut state.wasi).map_err(io::Error::other)?;
        let mut components = component::Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components).map_err(io::Error::other)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { engine, modules, components, ticker, places: Semaphore::new(instances as usize) })
    }
}

/// A compiler for engines of every size: what it makes fits them all.
pub(crate) fn compiler() -> io::Result<Engine> {
    Engine::new(&settings(None)).map_err(io::Error::other)
}

fn settings(pooled: Option<u32>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Only calls one at a time into a store; the machinery for more costs every call.
    config.concurrency_support(false);
    if let Some(instances) = pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
            .total_memories(instances.saturating_mul(2))
            .total_tables(instances.saturating_mul(4))
            .total_stacks(instances)
            .max_memories_per_component(MEMORIES_PER_COMPONENT)
            .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
            .max_tables_per_module(4)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            // Only the pages a call has written are zeroed after it, where the kernel tells which (Linux 6.7).
            .pagemap_scan(Enabled::Auto)
            .max_unused_warm_slots(instances.min(4));
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

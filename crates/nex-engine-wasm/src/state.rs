//! Host state of an instance: WASI context and memory limits.

use nex_engine::{Call, LineWriter};
use wasmtime::ResourceLimiter;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::pipe::{Pipe, Reply};

/// Maximum number of table elements of an instance.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;

pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: Memory,
}

impl State {
    pub(crate) fn new(
        call: Call,
        environment: &[(String, String)],
        output: (Pipe<Reply>, Pipe<LineWriter>),
        memory_bytes: usize,
    ) -> Self {
        let Call { subject, payload, headers: _ } = call;
        let wasi = WasiCtx::builder()
            .args(&["nexfunction", &subject])
            .envs(environment)
            .stdin(MemoryInputPipe::new(payload))
            .stdout(output.0)
            .stderr(output.1)
            .allow_tcp(false)
            .allow_udp(false)
            .build_p1();
        Self { wasi, memory: Memory { limit: memory_bytes, used: 0, elements: 0, refused: false } }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Usage of all linear memories and tables of an instance.
pub(crate) struct Memory {
    limit: usize,
    used: usize,
    elements: usize,
    /// Growth was refused. If the guest fails after that, it is out of memory.
    pub(crate) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let fits = used <= self.limit;
        if fits {
            self.used = used;
        } else {
            self.refused = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        let fits = elements <= MAX_TABLE_ELEMENTS;
        if fits {
            self.elements = elements;
        } else {
            self.refused = true;
        }
        Ok(fits)
    }
}

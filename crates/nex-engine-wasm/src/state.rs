//! Host state of an instance: WASI context, host services and memory limits.

use std::sync::Arc;

use bytes::Bytes;
use nex_engine::{Call, Stream};
use nex_protocol::agent::invocation::Headers;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::cpu::CpuMeter;
use crate::held::Room;
use crate::host::HostCalls;
use crate::outgoing::Http;
use crate::pipe::{Log, LoggedOutput, Pipe, Reply, Sink as _, TooMuch};

/// Maximum number of things that the host keeps for an instance: streams, headers, requests.
const MAX_RESOURCES: usize = 2048;
/// Maximum number of table elements of an instance.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;

/// Where an instance writes.
pub(crate) struct Outputs {
    pub(crate) reply: Pipe<Reply>,
    pub(crate) errors: Pipe<Log>,
    /// Whether standard output is the reply; it is logged otherwise.
    pub(crate) is_reply_stdout: bool,
}

pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    /// The workload's environment.
    pub(crate) environment: Arc<[(String, String)]>,
    pub(crate) host: HostCalls,
    pub(crate) http: Http,
    /// What may wait for this call outside its memory.
    pub(crate) room: Room,
    /// What the last call of a core module's import was answered.
    pub(crate) answer: Bytes,
    /// Headers of the reply that a handler has given.
    pub(crate) answered: Option<Headers>,
    reply: Pipe<Reply>,
    errors: Pipe<Log>,
    pub(crate) memory: Memory,
    /// Set where processor time is bounded.
    pub(crate) cpu: Option<Arc<CpuMeter>>,
}

impl State {
    pub(crate) fn new(
        call: Call,
        environment: &Arc<[(String, String)]>,
        host: HostCalls,
        output: Outputs,
        memory_bytes: usize,
    ) -> Self {
        let Call { subject, payload, headers: _, host: _, streaming: _ } = call;
        let Outputs { reply, errors, is_reply_stdout } = output;
        let mut wasi = WasiCtx::builder();
        wasi.args(&["nexfunction", &subject])
            .envs(environment)
            .stdin(MemoryInputPipe::new(payload))
            .stderr(errors.clone())
            .allow_tcp(false)
            .allow_udp(false);
        let mut wasi = match is_reply_stdout {
            true => wasi.stdout(reply.clone()).build_p1(),
            false => wasi.stdout(Pipe::new(LoggedOutput(errors.clone()))).build_p1(),
        };
        wasi.ctx().table.set_max_capacity(MAX_RESOURCES);
        let room = Room::new();
        let http = Http::new(host.clone(), errors.clone(), room.clone());
        let memory = Memory { limit: memory_bytes, used: 0, elements: 0, refused: false };
        let (environment, answer) = (Arc::clone(environment), Bytes::new());
        Self { wasi, environment, host, http, room, answer, answered: None, reply, errors, memory, cpu: None }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        self.wasi.ctx().table
    }

    /// A variable of the workload's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Adds to the reply, where it is not standard output.
    pub(crate) fn reply(&self, bytes: Bytes) {
        self.reply.lock().take(bytes);
    }

    /// Writes a line to the log, within its limit.
    pub(crate) fn log(&self, stream: Stream, text: &str) -> wasmtime::Result<()> {
        match self.errors.lock().line(stream, text) {
            true => Ok(()),
            false => Err(TooMuch.into()),
        }
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

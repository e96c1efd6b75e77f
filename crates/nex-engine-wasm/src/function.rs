//! A function: a linked program; every call gets its own instance.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_engine::{Call, CallError, Function, Launch, Limits, LineWriter, Output, Reply as Answer, Stream};
use tokio::sync::Semaphore;
use wasmtime::{Error, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::load::Program;
use crate::pipe::{Pipe, Reply};
use crate::runtime::Runtime;
use crate::state::State;

/// Frames of a trap's backtrace written to the workload's log.
const MAX_FRAMES: usize = 10;

/// A WASI command ready to be called. Every call gets a fresh instance.
pub struct WasmFunction {
    runtime: Arc<Runtime>,
    program: Program,
    environment: Vec<(String, String)>,
    limits: Limits,
    output: Output,
    calls: Semaphore,
}

impl WasmFunction {
    pub(crate) fn new(runtime: Arc<Runtime>, program: Program, launch: Launch) -> Self {
        let limits = launch.limits;
        let calls = Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let environment = launch.environment.into_iter().collect();
        Self { runtime, program, environment, limits, output: launch.output, calls }
    }

    async fn call(&self, call: Call) -> Result<Bytes, CallError> {
        let closed = |_closed| CallError::Failed("function is stopped".to_owned());
        let _call = self.calls.acquire().await.map_err(closed)?;
        let _slot = self.runtime.slots.acquire().await.map_err(closed)?;
        let _ticking = self.runtime.ticker.tick();
        let reply = Pipe::new(Reply::new(self.limits.reply_bytes));
        let errors = Pipe::new(LineWriter::new(self.output.clone(), Stream::Stderr));
        let memory = match self.limits.memory_bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        let state = State::new(call, &self.environment, (reply.clone(), errors), memory);
        let mut store = Store::new(&self.runtime.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let outcome = self.run(&mut store).await;
        outcome.or_else(|error| self.classify(&error, &store))?;
        reply.lock().finish().map_err(|actual| CallError::ReplyTooLarge { actual, limit: self.limits.reply_bytes })
    }

    async fn run(&self, store: &mut Store<State>) -> Result<(), Error> {
        match &self.program {
            Program::Module(program, start) => {
                let instance = program.instantiate_async(&mut *store).await?;
                let start = instance.get_module_export(&mut *store, start).and_then(wasmtime::Extern::into_func);
                let start = start.ok_or_else(|| Error::msg("module lost its _start"))?.typed::<(), ()>(&mut *store)?;
                start.call_async(store, ()).await
            }
            Program::Component(program) => {
                let command = program.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await?.map_err(|()| I32Exit(1).into())
            }
        }
    }

    /// Classifies the error that ended an instance; `exit(0)` is not an error.
    fn classify(&self, error: &Error, store: &Store<State>) -> Result<(), CallError> {
        if let Some(I32Exit(status)) = error.downcast_ref()
            && (*status == 0 || !store.data().memory.refused)
        {
            return if *status == 0 { Ok(()) } else { Err(CallError::Failed(format!("function exited with status {status}"))) };
        }
        if store.data().memory.refused {
            return Err(CallError::OutOfMemory(self.limits.memory_bytes));
        }
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            backtrace.frames().iter().take(MAX_FRAMES).for_each(|frame| {
                let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
                self.output.line(Stream::Stderr, format!("  at {name}"));
            });
        }
        let text = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
        Err(CallError::Failed(text))
    }
}

impl Function for WasmFunction {
    fn invoke(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        // Dropping the call at its deadline unwinds the instance, whether it computes or waits for the host.
        Box::pin(async move {
            let call = tokio::time::timeout(self.limits.call_time, self.call(call));
            call.await.unwrap_or(Err(CallError::Timeout(self.limits.call_time))).map(Answer::from)
        })
    }
}

impl fmt::Debug for WasmFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmFunction").field("limits", &self.limits).finish_non_exhaustive()
    }
}

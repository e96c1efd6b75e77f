//! A function: a linked program; every call gets its own instance.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use nex_engine::{
    Call, CallError, Function, HostClient, Launch, Limits, Output, Reply as Answer, Response, Stream, Streaming, Trace,
};
use tokio::sync::Semaphore;
use wasmtime::{Error, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::cpu::CpuMeter;
use crate::host::{HostCalls, TooManyHostCalls};
use crate::load::{Handlers, Program};
use crate::pipe::{Log, Pipe, Reply};
use crate::runtime::Runtime;
use crate::state::{Outputs, State};
use crate::wasi::http::{self, Asked};
use crate::wasi::messaging::{self, BrokerMessage};
use crate::wasi::wasi_messaging::{self, Message};

/// Frames of a trap's backtrace written to the workload's log.
const MAX_FRAMES: usize = 10;
/// The status of a reply that has none.
const OK: u16 = 200;

/// A handler of messages said that it could not handle one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// What a handler is given; a command has its payload on standard input.
enum Given {
    Nothing,
    Message(BrokerMessage),
    WasiMessage(Message),
    Request(Box<Asked>),
}

/// A WASI command or a handler of requests or messages, ready to be called. Every call gets a fresh instance.
pub struct WasmFunction {
    runtime: Arc<Runtime>,
    program: Program,
    environment: Arc<[(String, String)]>,
    host: Arc<dyn HostClient>,
    limits: Limits,
    output: Output,
    calls: Semaphore,
}

impl WasmFunction {
    pub(crate) fn new(runtime: Arc<Runtime>, program: Program, launch: Launch) -> Self {
        let limits = launch.limits;
        let calls = Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let environment = launch.environment.into_iter().collect();
        Self { runtime, program, environment, host: launch.host, limits, output: launch.output, calls }
    }

    async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let closed = |_closed| CallError::Failed("function is stopped".to_owned());
        let _call = self.calls.acquire().await.map_err(closed)?;
        let _slot = self.runtime.slots.acquire().await.map_err(closed)?;
        let _ticking = self.runtime.ticker.tick();
        let reply = Pipe::new(Reply::new(self.limits.reply_bytes));
        let errors = Pipe::new(Log::new(self.output.clone(), self.limits.log_bytes));
        let memory = match self.limits.memory_bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        let given = self.given(&call)?;
        let is_http = matches!(&given, Given::Request(asked) if asked.is_http);
        let host = HostCalls::new(
            call.host.clone().unwrap_or_else(|| Arc::clone(&self.host)),
            self.limits.host_calls,
            Trace::of(&call.headers),
        );
        let output = Outputs { reply: reply.clone(), errors: errors.clone(), is_reply_stdout: matches!(given, Given::Nothing) };
        let streaming = call.streaming.clone();
        let state = State::new(call, &self.environment, host.clone(), output, memory);
        let mut store = Store::new(&self.runtime.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        let outcome = match self.limits.cpu_time {
            None => {
                store.epoch_deadline_async_yield_and_update(1);
                self.run_within(&host, self.run(&mut store, given, (&reply, streaming.as_ref()))).await
            }
            Some(limit) => {
                let meter = CpuMeter::new(limit);
                store.data_mut().cpu = Some(Arc::clone(&meter));
                store.epoch_deadline_callback(|store| match &store.data().cpu {
                    Some(meter) if meter.is_spent() => Err(Error::msg("processor time is spent")),
                    _ => Ok(UpdateDeadline::Yield(1)),
                });
                meter.measure(self.run_within(&host, self.run(&mut store, given, (&reply, streaming.as_ref())))).await
            }
        };
        if store.data().cpu.as_ref().is_some_and(|meter| meter.is_spent()) {
            return Err(CallError::CpuTime(self.limits.cpu_time.unwrap_or_default()));
        }
        if let Some(limit) = errors.lock().is_over() {
            return Err(CallError::LogTooLong(limit));
        }
        let response = outcome.or_else(|error| self.classify(&error, &store).map(|()| None))?;
        let too_large = |actual| CallError::ReplyTooLarge { actual, limit: self.limits.reply_bytes };
        let body = reply.lock().finish().map_err(too_large)?;
        match response {
            Some(response) if is_http => Ok(response.http_reply(body)),
            Some(response) => response.reply(body),
            None => Ok(body.into()),
        }
    }

    /// What a call gives to the handler that it is for: a request to that of requests, unless there is only the other.
    fn given(&self, call: &Call) -> Result<Given, CallError> {
        let Program::Handlers(Handlers { requests, messages, wasi_messages }) = &self.program else { return Ok(Given::Nothing) };
        let has_others = messages.is_some() || wasi_messages.is_some();
        Ok(match requests.is_some() && (!has_others || http::is_request(call)) {
            true => Given::Request(Box::new(Asked::of(call)?)),
            false if wasi_messages.is_some() => Given::WasiMessage(Message::of(call)),
            false => Given::Message(messaging::message_of(call)),
        })
    }

    /// Ends an instance whose host calls are too many while it does not see that itself.
    async fn run_within<T>(&self, host: &HostCalls, run: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        tokio::select! {
            biased;
            outcome = run => outcome,
            too_many = host.too_many() => Err(too_many.into()),
        }
    }

    async fn run(
        &self,
        store: &mut Store<State>,
        given: Given,
        to: (&Pipe<Reply>, Option<&Streaming>),
    ) -> Result<Option<Response>, Error> {
        let missing = || Error::msg("there is no handler of what is given");
        match (&self.program, given) {
            (Program::Module(program, start), _) => {
                let instance = program.instantiate_async(&mut *store).await?;
                let start = instance.get_module_export(&mut *store, start).and_then(wasmtime::Extern::into_func);
                let start = start.ok_or_else(|| Error::msg("module lost its _start"))?.typed::<(), ()>(&mut *store)?;
                start.call_async(store, ()).await.map(|()| None)
            }
            (Program::Component(program), _) => {
                let command = program.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await?.map_err(|()| I32Exit(1))?;
                Ok(None)
            }
            (Program::Handlers(handlers), Given::Request(asked)) => {
                let handler = handlers.requests.as_ref().ok_or_else(missing)?;
                http::serve(store, handler, *asked, to).await.map(Some)
            }
            (Program::Handlers(handlers), Given::Message(message)) => {
                let handler = handlers.messages.as_ref().ok_or_else(missing)?.instantiate_async(&mut *store).await?;
                let handled = handler.wasmcloud_messaging_handler().call_handle_message(store, &message).await?;
                handled.map_err(Refused)?;
                Ok(None)
            }
            (Program::Handlers(handlers), Given::WasiMessage(message)) => {
                let handler = handlers.wasi_messages.as_ref().ok_or_else(missing)?;
                wasi_messaging::handle(store, handler, message).await?.map_err(Refused)?;
                let headers = store.data_mut().answered.take();
                Ok(headers.map(|headers| Response::new(OK, String::new(), headers)).transpose()?)
            }
            (Program::Handlers(_), Given::Nothing) => Err(missing()),
        }
    }

    /// Classifies the error that ended an instance; `exit(0)` is not an error.
    fn classify(&self, error: &Error, store: &Store<State>) -> Result<(), CallError> {
        if let Some(TooManyHostCalls(limit)) = error.downcast_ref() {
            return Err(CallError::TooManyHostCalls(*limit));
        }
        if let Some(Refused(why)) = error.downcast_ref() {
            return Err(CallError::Failed(why.clone()));
        }
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
            self.limits.admit(&call)?;
            let call = tokio::time::timeout(self.limits.call_time, self.call(call));
            call.await.unwrap_or(Err(CallError::Timeout(self.limits.call_time)))
        })
    }
}

impl fmt::Debug for WasmFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmFunction").field("limits", &self.limits).finish_non_exhaustive()
    }
}

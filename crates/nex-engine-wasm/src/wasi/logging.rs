//! `wasi:logging`: lines of the workload's log. What is a warning or worse is an error line.

use nex_engine::Stream;
use wasmtime::component::{HasSelf, Linker};

use crate::state::State;
use bindings::wasi::logging::logging::{Host, Level, add_to_linker as add};

mod bindings {
    wasmtime::component::bindgen!({ path: "wit/logging", world: "imports", imports: { default: trappable } });
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    add::<_, HasSelf<_>>(linker, |state| state)
}

impl Host for State {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let stream = match level {
            Level::Trace | Level::Debug | Level::Info => Stream::Stdout,
            Level::Warn | Level::Error | Level::Critical => Stream::Stderr,
        };
        let text = if context.is_empty() { message } else { format!("{context}: {message}") };
        State::log(self, stream, &text)
    }
}

//! From an artifact, or what was compiled from it earlier, to a program whose imports are all resolved.

use std::path::Path;

use nex_engine::{Launch, StartError};
use wasmtime::component::Component;
use wasmtime::{Engine, Error, InstancePre, Module, ModuleExport, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::runtime::Runtime;
use crate::state::State;
use crate::wasi::http::{self, ProxyPre};
use crate::wasi::messaging::{self, MessageHandlerPre};
use crate::wasi::wasi_messaging;

pub(crate) enum Program {
    /// A core module and its `_start`.
    Module(InstancePre<State>, ModuleExport),
    /// A component that exports `wasi:cli/run`.
    Component(CommandPre<State>),
    /// A component that exports handlers, at least one.
    Handlers(Handlers),
}

/// What a component has to be called by; each call goes to one.
#[derive(Default)]
pub(crate) struct Handlers {
    /// Of [`http::HANDLER`].
    pub(crate) requests: Option<ProxyPre<State>>,
    /// Of [`messaging::HANDLER`].
    pub(crate) messages: Option<MessageHandlerPre<State>>,
    /// Of [`wasi_messaging::HANDLER`].
    pub(crate) wasi_messages: Option<wasi_messaging::MessageHandlerPre<State>>,
}

pub(crate) struct Loaded {
    pub(crate) program: Program,
    /// Whether the code compiled earlier was used.
    pub(crate) precompiled: bool,
}

enum Code {
    Module(Module),
    Component(Component),
}

pub(crate) fn load(runtime: &Runtime, launch: &Launch) -> Result<Loaded, StartError> {
    let earlier = launch.precompiled.as_deref().and_then(|path| load_compiled(&runtime.engine, path));
    let precompiled = earlier.is_some();
    let code = match earlier {
        Some(code) => code,
        None => compile(&runtime.engine, &launch.artifact)?,
    };
    let program = match code {
        Code::Module(module) => link_module(runtime, &module)?,
        Code::Component(component) => link_component(runtime, &component)?,
    };
    Ok(Loaded { program, precompiled })
}

/// What a file holds.
enum Source {
    Module(Vec<u8>),
    Component(Vec<u8>),
}

fn read(path: &Path) -> Result<Source, StartError> {
    let source = std::fs::read(path).map_err(|source| StartError::host(format!("read {}", path.display()), source))?;
    match source.as_slice() {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Source::Module(source)),
        [0, b'a', b's', b'm', _, 0, 1, 0, ..] => Ok(Source::Component(source)),
        _ => {
            let head = source.get(..8).unwrap_or(&source);
            Err(StartError::Invalid(format!("failed to compile module: not WebAssembly, it begins with {head:02x?}")))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: Error) -> StartError {
    StartError::Invalid(format!("failed to compile module: {error:#}"))
}

fn compile(engine: &Engine, path: &Path) -> Result<Code, StartError> {
    match read(path)? {
        Source::Module(source) => Module::new(engine, &source).map(Code::Module).map_err(invalid),
        Source::Component(source) => Component::new(engine, &source).map(Code::Component).map_err(invalid),
    }
}

/// Compiles without making anything that could run.
pub(crate) fn precompile(engine: &Engine, path: &Path) -> Result<Vec<u8>, StartError> {
    match read(path)? {
        Source::Module(source) => engine.precompile_module(&source).map_err(invalid),
        Source::Component(source) => engine.precompile_component(&source).map_err(invalid),
    }
}

/// The code compiled earlier, unless it is of another Wasmtime, another machine, or damaged: then it is compiled again.
fn load_compiled(engine: &Engine, path: &Path) -> Option<Code> {
    let kind = Engine::detect_precompiled_file(path).ok()??;
    let code = deserialize(engine, kind, path);
    code.inspect_err(|error| tracing::info!(error = format!("{error:#}"), "compiling again")).ok()
}

#[expect(
    unsafe_code,
    reason = "Wasmtime has no safe way to load compiled code; the file comes from the node, never from a guest"
)]
fn deserialize(engine: &Engine, kind: Precompiled, path: &Path) -> wasmtime::Result<Code> {
    match kind {
        // SAFETY: the file holds what `compile` gave for this artifact, in a process that ran no guest; whoever calls has compared its
        // digest with the node's, and nothing changes a kept file while it is mapped. Another version or configuration is refused by its header.
        Precompiled::Module => unsafe { Module::deserialize_file(engine, path) }.map(Code::Module),
        // SAFETY: as above.
        Precompiled::Component => unsafe { Component::deserialize_file(engine, path) }.map(Code::Component),
    }
}

fn link_module(runtime: &Runtime, module: &Module) -> Result<Program, StartError> {
    let entry = module.get_export("_start").and_then(|export| export.func().cloned());
    let entry = entry.filter(|entry| entry.params().len() == 0 && entry.results().len() == 0);
    let (Some(_), Some(start)) = (entry, module.get_export_index("_start")) else {
        return Err(StartError::Invalid("module has no function _start: build it as a WASI command, not as a library".into()));
    };
    let linker = runtime.modules().map_err(|error| StartError::host("set up the wasm engine", error))?;
    let program = linker.instantiate_pre(module).map_err(|error| link_error(&error))?;
    Ok(Program::Module(program, start))
}

fn link_component(runtime: &Runtime, component: &Component) -> Result<Program, StartError> {
    let linker = runtime.components().map_err(|error| StartError::host("set up the wasm engine", error))?;
    let linked = linker.instantiate_pre(component).map_err(|error| link_error(&error))?;
    let has = |handler: &str| component.get_export_index(None, handler).is_some();
    let of = |error: Error| link_error(&error);
    let requests = has(http::HANDLER).then(|| ProxyPre::new(linked.clone())).transpose().map_err(of)?;
    let messages = has(messaging::HANDLER).then(|| MessageHandlerPre::new(linked.clone())).transpose().map_err(of)?;
    let wasi_messages = has(wasi_messaging::HANDLER).then(|| wasi_messaging::MessageHandlerPre::new(linked.clone()));
    let wasi_messages = wasi_messages.transpose().map_err(of)?;
    if requests.is_some() || messages.is_some() || wasi_messages.is_some() {
        return Ok(Program::Handlers(Handlers { requests, messages, wasi_messages }));
    }
    CommandPre::new(linked).map(Program::Component).map_err(of)
}

fn link_error(error: &Error) -> StartError {
    StartError::Invalid(format!(
        "failed to link module: {error:#}; a function is a WASI command, or a handler of wasi:http, wasi:messaging or wasmcloud:messaging, \
         and may import WASI preview 1 and 'nex', or wasi:cli, wasi:http, wasi:keyvalue, wasi:blobstore, wasi:config, wasi:logging, \
         wasi:messaging and wasmcloud:messaging"
    ))
}

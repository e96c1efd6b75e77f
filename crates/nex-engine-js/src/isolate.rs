//! A loaded script that can be called again and again and remembers nothing: after each call its memory is what it was.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use nex_engine::{Call, CallError, Launch, Reply, StartError};
use tokio::runtime::Handle;

use crate::arena::Arena;
use crate::budget::Budget;
use crate::failure::{classify, describe};
use crate::image::Restore;
use crate::load;
use crate::message::Message;
use crate::natives::{self, Host};
use crate::rejections::Rejections;
use crate::script::Script;
use crate::settle::{Settled, settle};
use crate::value::{Scope, Thrown, Value};
use crate::vm::{Kept, Vm};
use crate::web;

const PRELUDE: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(concat!(include_str!("prelude.js"), "\0").as_bytes()) {
    Ok(source) => source,
    Err(_nul) => c"",
};
/// Stack of a thread that has an [`Isolate`]: what a script may use, and room for natives and for the report of an overflow.
pub const STACK_BYTES: usize = 4 * 1024 * 1024;
/// What the engine and the prelude need beside the script, which is not counted against its limit.
const BASE_BYTES: usize = 2 * 1024 * 1024;
/// Garbage of a call that is left to the restore.
const MAX_GARBAGE_BYTES: usize = 8 * 1024 * 1024;

/// One script on one thread. Between [`Self::call`] and [`Self::restore`] it remembers the call.
pub struct Isolate {
    vm: Vm,
    handler: Kept,
    prelude: Prelude,
    host: Rc<Host>,
}

/// What the prelude gives the engine.
#[derive(Clone, Copy)]
struct Prelude {
    tick: Kept,
    to_function: Kept,
    to_reply: Kept,
}

impl Isolate {
    /// Loads a script for calls from this thread, which has a stack of [`STACK_BYTES`] and is not one of Tokio's: host calls block it.
    ///
    /// # Errors
    /// [`StartError`], as [`crate::start`].
    pub fn load(launch: Launch, restore: Restore, handle: Handle) -> Result<Self, StartError> {
        let script = Arc::new(Script::read(launch, restore, handle)?);
        Ok(Self::new(&script, &Arc::default())?)
    }

    /// Runs prelude and script, and makes the image.
    pub(crate) fn new(script: &Arc<Script>, closed: &Arc<AtomicBool>) -> Result<Self, LoadError> {
        // The prelude is no part of the script: on a slow host it has what time it needs.
        let budget = Budget::new(script.limits, None, Arc::clone(closed));
        let host = Rc::new(Host {
            script: Arc::clone(script),
            budget,
            loading: Cell::new(true),
            message: Message::default(),
            rejections: Rejections::default(),
        });
        let limit = usize::try_from(script.limits.memory_bytes).unwrap_or(usize::MAX);
        let arena = Arena::reserve(limit.saturating_add(BASE_BYTES))?;
        let mut vm = Vm::new(arena, Rc::clone(&host) as _)?;
        let prelude = install(&vm, script)?;
        // From here on the script's own limits apply.
        vm.limit_memory(limit);
        host.budget.renew(Instant::now().checked_add(script.limits.call_time), Arc::default());
        let handler =
            vm.keep(&load::evaluate(vm.enter(), vm.kept(prelude.tick), vm.kept(prelude.to_function), script, &host.budget)?);
        host.log_rejections(vm.enter());
        vm.collect_garbage((limit / 4).min(MAX_GARBAGE_BYTES));
        host.loading.set(false);
        vm.take_image(script.restore)?;
        Ok(Self { vm, handler, prelude, host })
    }

    /// Serves one call within the script's limits.
    ///
    /// # Errors
    /// [`CallError`]. The next call is served after [`Self::restore`], whatever this one came to.
    pub fn call(&self, call: &Call) -> Result<Reply, CallError> {
        let deadline = Instant::now().checked_add(self.host.script.limits.call_time);
        self.call_until(call, deadline, Arc::default())
    }

    pub(crate) fn call_until(
        &self,
        call: &Call,
        deadline: Option<Instant>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Reply, CallError> {
        self.host.budget.renew(deadline, cancelled);
        self.host.message.begin(call);
        let scope = self.vm.enter();
        let reply = match self.run(scope, call) {
            Ok(Some(reply)) => reply.and_then(|payload| self.host.message.finish(payload)),
            Ok(None) => Err(self.unsettled(scope)),
            Err(Thrown) => Err(classify(scope, &self.host.budget, &self.host.script)),
        };
        self.host.log_rejections(scope);
        reply
    }

    /// Makes everything what it was when the script was loaded.
    ///
    /// # Errors
    /// What the kernel refused. The isolate must not be used again.
    pub fn restore(&mut self) -> io::Result<()> {
        self.vm.restore()
    }

    /// All memory of the engine, to see that it is restored.
    #[must_use]
    pub fn memory(&self) -> &[u8] {
        self.vm.memory()
    }

    fn run<'a>(&'a self, scope: Scope<'a>, call: &Call) -> Result<Option<Result<Bytes, CallError>>, Thrown> {
        let subject = scope.text(&call.subject)?;
        let payload = scope.bytes(&call.payload)?;
        let returned = scope.call(self.vm.kept(self.handler), &[subject.value(), payload.value()])?;
        let settled = settle(scope, returned.value(), self.vm.kept(self.prelude.tick), &self.host.budget);
        self.host.rejections.forget(returned.value());
        match settled? {
            Settled::Value(value) => self.reply(scope, value).map(Some),
            Settled::Never => Ok(None),
        }
    }

    /// The promise is pending and no job is left. QuickJS does not report a job that it could not allocate, so a probe allocation tells
    /// whether memory ran out.
    fn unsettled(&self, scope: Scope<'_>) -> CallError {
        let limit = self.host.script.limits.memory_bytes;
        let probe = usize::try_from(limit / 8).unwrap_or_default();
        if scope.bytes(&vec![0; probe]).is_err() {
            return CallError::OutOfMemory(limit);
        }
        CallError::Failed("function waits for a promise that nothing can settle any more (or its memory ran out)".to_owned())
    }

    fn reply<'a>(&'a self, scope: Scope<'a>, value: Value<'a>) -> Result<Result<Bytes, CallError>, Thrown> {
        let limit = self.host.script.limits.reply_bytes;
        let bounded = |bytes: &[u8]| {
            let actual = bytes.len();
            if actual > limit { Err(CallError::ReplyTooLarge { actual, limit }) } else { Ok(Bytes::copy_from_slice(bytes)) }
        };
        if let Some(reply) = scope.with_bytes(value, bounded) {
            return Ok(reply);
        }
        let json = scope.call(self.vm.kept(self.prelude.to_reply), &[value])?;
        // What has no JSON is nothing: `undefined`.
        Ok(if json.value().is_undefined() { Ok(Bytes::new()) } else { bounded(scope.to_text(json.value())?.as_bytes()) })
    }
}

impl std::fmt::Debug for Isolate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolate").finish_non_exhaustive()
    }
}

/// Why a script could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The host's doing: no memory for the engine, or the kernel refused something.
    #[error("failed to set up a JavaScript context: {0}")]
    Host(#[from] io::Error),
    /// Its own.
    #[error(transparent)]
    Script(#[from] CallError),
}

impl From<LoadError> for StartError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Host(source) => Self::host("set up a JavaScript context", source),
            LoadError::Script(error) => Self::Invalid(format!("failed to compile source for execution: {error}")),
        }
    }
}

fn install(vm: &Vm, script: &Script) -> io::Result<Prelude> {
    let scope = vm.enter();
    let provide = || -> Result<Prelude, Thrown> {
        let prelude = scope.run_script(PRELUDE, c"nex:prelude")?;
        let natives = natives::object(scope, script)?;
        let given = scope.call(prelude.value(), &[natives.value(), web::object(scope)?.value()])?;
        let member = |name| scope.get(given.value(), name).map(|member| vm.keep(&member));
        Ok(Prelude { tick: member(c"tick")?, to_function: member(c"toFunction")?, to_reply: member(c"toReply")? })
    };
    provide().map_err(|Thrown| {
        let why = describe(scope, scope.take_exception().value(), script);
        io::Error::other(format!("the prelude does not run: {why}"))
    })
}

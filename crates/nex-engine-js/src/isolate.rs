//! One runtime with one context: created, called once, dropped. Nothing of a call outlives it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use nex_engine::{Call, CallError};
use rquickjs::context::EvalOptions;
use rquickjs::promise::PromiseState;
use rquickjs::{Context, Ctx, Error, Function, Persistent, Runtime, TypedArray, Value};

use crate::budget::Budget;
use crate::failure::classify;
use crate::globals;
use crate::script::{Script, SourceType};
use crate::typed_array::copy_bytes;

/// Native stack that a script may use; the worker's thread has more.
const MAX_STACK_BYTES: usize = 1024 * 1024;

pub(crate) struct Isolate {
    // Dropped in this order: values before the context that holds the runtime, the context before the script that holds its bytecode.
    handler: Persistent<Function<'static>>,
    run_timers: Persistent<Function<'static>>,
    context: Context,
    budget: Rc<Budget>,
    script: Arc<Script>,
}

impl Isolate {
    /// Makes a context and evaluates the source in it.
    pub(crate) fn new(script: &Arc<Script>, closed: &Arc<AtomicBool>) -> Result<Self, CallError> {
        let setup = |error: Error| CallError::Failed(format!("failed to set up a JavaScript context: {error}"));
        let budget = Rc::new(Budget::new(Instant::now().checked_add(script.limits.call_time), Arc::clone(closed)));
        let runtime = Runtime::new().map_err(setup)?;
        runtime.set_max_stack_size(MAX_STACK_BYTES);
        let context = Context::full(&runtime).map_err(setup)?;
        let run_timers =
            context.with(|ctx| globals::install(&ctx, script, &budget).map(|run_timers| Persistent::save(&ctx, run_timers)));
        let run_timers = run_timers.map_err(setup)?;
        // From here on the script's own limits apply.
        let watch = Rc::clone(&budget);
        runtime.set_interrupt_handler(Some(Box::new(move || watch.check())));
        runtime.set_memory_limit(usize::try_from(script.limits.memory_bytes).unwrap_or(usize::MAX));
        let handler = context.with(|ctx| {
            let run_timers = run_timers.clone().restore(&ctx).map_err(setup)?;
            evaluate(&ctx, script, &run_timers, &budget).map(|handler| Persistent::save(&ctx, handler))
        })?;
        Ok(Self { handler, run_timers, context, budget, script: Arc::clone(script) })
    }

    /// Serves the one call this isolate was made for.
    pub(crate) fn call(&self, call: &Call, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) -> Result<Bytes, CallError> {
        self.budget.renew(deadline, cancelled);
        self.context.with(|ctx| {
            let run = || {
                let handler = self.handler.clone().restore(&ctx)?;
                let run_timers = self.run_timers.clone().restore(&ctx)?;
                let payload = TypedArray::<u8>::new_copy(ctx.clone(), &call.payload)?;
                let value = handler.call((call.subject.as_str(), payload))?;
                settle(&ctx, value, &run_timers, &self.budget)
                    .and_then(|value| value.map(|value| self.reply(&ctx, value)).transpose())
            };
            match run() {
                Ok(Some(reply)) => reply,
                Ok(None) => Err(self.unsettled(&ctx)),
                Err(error) => Err(classify(&ctx, &error, &self.budget, &self.script)),
            }
        })
    }

    /// The promise is pending and no job is left. QuickJS does not report a job that it could not allocate, so a probe allocation tells
    /// whether memory ran out.
    fn unsettled(&self, ctx: &Ctx<'_>) -> CallError {
        let probe = usize::try_from(self.script.limits.memory_bytes / 8).unwrap_or_default();
        if TypedArray::<u8>::new_copy(ctx.clone(), vec![0; probe]).is_err() {
            return CallError::OutOfMemory(self.script.limits.memory_bytes);
        }
        CallError::Failed("function waits for a promise that nothing can settle any more (or its memory ran out)".to_owned())
    }

    fn reply<'js>(&self, ctx: &Ctx<'js>, value: Value<'js>) -> Result<Result<Bytes, CallError>, Error> {
        let limit = self.script.limits.reply_bytes;
        let too_large = |actual| CallError::ReplyTooLarge { actual, limit };
        let object = value.as_object();
        if let Some(array) = object.and_then(|object| object.as_typed_array::<u8>()) {
            return Ok(copy_bytes(array, limit).map_err(too_large));
        }
        if let Some(buffer) = object.and_then(|object| object.as_array_buffer()) {
            let array = TypedArray::<u8>::from_arraybuffer(buffer.clone())?;
            return Ok(copy_bytes(&array, limit).map_err(too_large));
        }
        let text = match ctx.json_stringify(value)? {
            Some(text) => text.to_string()?,
            None => "undefined".to_owned(),
        };
        Ok(if text.len() > limit { Err(too_large(text.len())) } else { Ok(text.into()) })
    }
}

/// Evaluates the source as what it is known to be; the first time, as a script, and if that does not parse, as a module.
fn evaluate<'js>(
    ctx: &Ctx<'js>,
    script: &Script,
    run_timers: &Function<'js>,
    budget: &Budget,
) -> Result<Function<'js>, CallError> {
    let failed = |error: Error| classify(ctx, &error, budget, script);
    let value = match script.source_type.get() {
        Some(SourceType::Script) => evaluate_script(ctx, script).map_err(failed)?,
        Some(SourceType::Module) => evaluate_module(ctx, script, run_timers, budget).map_err(failed)?,
        None => {
            let value = match evaluate_script(ctx, script).map_err(failed) {
                Err(CallError::Failed(text)) if text.starts_with("SyntaxError") => {
                    let value = evaluate_module(ctx, script, run_timers, budget).map_err(failed);
                    let _known = script.source_type.set(SourceType::Module);
                    // If it is not a module either, report the error of the script: that is more likely what it was meant to be.
                    value.map_err(|error| if has_exports(&script.source) { error } else { CallError::Failed(text) })?
                }
                value => value?,
            };
            let _known = script.source_type.set(SourceType::Script);
            value
        }
    };
    value.into_function().ok_or_else(|| {
        CallError::Failed(match script.source_type.get() {
            Some(SourceType::Module) => "module has no function as its default export".to_owned(),
            _ => "script's completion value is no function: let it end with (subject, payload) => …".to_owned(),
        })
    })
}

fn has_exports(source: &str) -> bool {
    source.lines().any(|line| line.trim_start().starts_with("export ") || line.trim_start().starts_with("import "))
}

fn evaluate_script<'js>(ctx: &Ctx<'js>, script: &Script) -> Result<Value<'js>, Error> {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.filename = Some(script.file.clone());
    ctx.eval_with_options(script.source.as_str(), options)
}

fn evaluate_module<'js>(
    ctx: &Ctx<'js>,
    script: &Script,
    run_timers: &Function<'js>,
    budget: &Budget,
) -> Result<Value<'js>, Error> {
    let (module, loaded) = script.code.declare(ctx, &script.file, &script.source)?.eval()?;
    settle(ctx, loaded.into_value(), run_timers, budget)?;
    module.get("default")
}

/// Runs the script's jobs and timers until a promise is settled; `None` if they never can. Other values are returned as they are.
fn settle<'js>(
    ctx: &Ctx<'js>,
    value: Value<'js>,
    run_timers: &Function<'js>,
    budget: &Budget,
) -> Result<Option<Value<'js>>, Error> {
    loop {
        while !budget.check() && ctx.execute_pending_job() {}
        if budget.check() {
            return Err(Error::WouldBlock);
        }
        let Some(promise) = value.as_promise() else { return Ok(Some(value)) };
        if promise.state() != PromiseState::Pending {
            return promise.result().transpose();
        }
        match run_timers.call::<_, f64>(())? {
            left if left < 0.0 => return Ok(None),
            left => budget.wait(left),
        }
    }
}

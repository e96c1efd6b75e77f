//! One runtime with one context in it: made, called once, thrown away. Nothing of a call outlives it.

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
use crate::failure::judge;
use crate::globals;
use crate::recipe::{Kind, Recipe};
use crate::typed_array::octets;

/// Deepest native stack a script may use; the worker's thread has more.
const STACK_BYTES: usize = 1024 * 1024;

pub(crate) struct Isolate {
    // Values before the context, which holds the runtime, and that before the recipe, which has its bytecode: dropped in this order.
    handler: Persistent<Function<'static>>,
    tick: Persistent<Function<'static>>,
    context: Context,
    budget: Rc<Budget>,
    recipe: Arc<Recipe>,
}

impl Isolate {
    /// Makes a context and evaluates the source in it.
    pub(crate) fn new(recipe: &Arc<Recipe>, closed: &Arc<AtomicBool>) -> Result<Self, CallError> {
        let setup = |error: Error| CallError::Failed(format!("failed to set up a JavaScript context: {error}"));
        let budget = Rc::new(Budget::new(Instant::now().checked_add(recipe.limits.call_time), Arc::clone(closed)));
        let runtime = Runtime::new().map_err(setup)?;
        runtime.set_max_stack_size(STACK_BYTES);
        let context = Context::full(&runtime).map_err(setup)?;
        let tick = context.with(|ctx| globals::install(&ctx, recipe, &budget).map(|tick| Persistent::save(&ctx, tick)));
        let tick = tick.map_err(setup)?;
        // From here on it is the script's time and memory.
        let watch = Rc::clone(&budget);
        runtime.set_interrupt_handler(Some(Box::new(move || watch.check())));
        runtime.set_memory_limit(usize::try_from(recipe.limits.memory_bytes).unwrap_or(usize::MAX));
        let handler = context.with(|ctx| {
            let tick = tick.clone().restore(&ctx).map_err(setup)?;
            evaluate(&ctx, recipe, &tick, &budget).map(|handler| Persistent::save(&ctx, handler))
        })?;
        Ok(Self { handler, tick, context, budget, recipe: Arc::clone(recipe) })
    }

    /// Serves the one call this isolate was made for.
    pub(crate) fn call(&self, call: &Call, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) -> Result<Bytes, CallError> {
        self.budget.renew(deadline, cancelled);
        self.context.with(|ctx| {
            let run = || {
                let handler = self.handler.clone().restore(&ctx)?;
                let tick = self.tick.clone().restore(&ctx)?;
                let payload = TypedArray::<u8>::new_copy(ctx.clone(), &call.payload)?;
                let value = handler.call((call.subject.as_str(), payload))?;
                settle(&ctx, value, &tick, &self.budget).and_then(|value| value.map(|value| self.reply(&ctx, value)).transpose())
            };
            match run() {
                Ok(Some(reply)) => reply,
                Ok(None) => Err(self.stuck(&ctx)),
                Err(error) => Err(judge(&ctx, &error, &self.budget, &self.recipe)),
            }
        })
    }

    /// Nothing is left to run and the promise is pending. When a job could not be made for want of memory nobody is told, but then
    /// memory is still full.
    fn stuck(&self, ctx: &Ctx<'_>) -> CallError {
        let probe = usize::try_from(self.recipe.limits.memory_bytes / 8).unwrap_or_default();
        if TypedArray::<u8>::new_copy(ctx.clone(), vec![0; probe]).is_err() {
            return CallError::OutOfMemory(self.recipe.limits.memory_bytes);
        }
        CallError::Failed("function waits for a promise that nothing can settle any more (or its memory ran out)".to_owned())
    }

    fn reply<'js>(&self, ctx: &Ctx<'js>, value: Value<'js>) -> Result<Result<Bytes, CallError>, Error> {
        let limit = self.recipe.limits.reply_bytes;
        let too_large = |actual| CallError::ReplyTooLarge { actual, limit };
        let object = value.as_object();
        if let Some(array) = object.and_then(|object| object.as_typed_array::<u8>()) {
            return Ok(octets(array, limit).map_err(too_large));
        }
        if let Some(buffer) = object.and_then(|object| object.as_array_buffer()) {
            let array = TypedArray::<u8>::from_arraybuffer(buffer.clone())?;
            return Ok(octets(&array, limit).map_err(too_large));
        }
        let text = match ctx.json_stringify(value)? {
            Some(text) => text.to_string()?,
            None => "undefined".to_owned(),
        };
        Ok(if text.len() > limit { Err(too_large(text.len())) } else { Ok(text.into()) })
    }
}

/// Evaluates the source as what it is known to be; the first time, as a script, and if that does not parse, as a module.
fn evaluate<'js>(ctx: &Ctx<'js>, recipe: &Recipe, tick: &Function<'js>, budget: &Budget) -> Result<Function<'js>, CallError> {
    let failed = |error: Error| judge(ctx, &error, budget, recipe);
    let value = match recipe.kind.get() {
        Some(Kind::Script) => script(ctx, recipe).map_err(failed)?,
        Some(Kind::Module) => module(ctx, recipe, tick, budget).map_err(failed)?,
        None => {
            let value = match script(ctx, recipe).map_err(failed) {
                Err(CallError::Failed(text)) if text.starts_with("SyntaxError") => {
                    let value = module(ctx, recipe, tick, budget).map_err(failed);
                    let _known = recipe.kind.set(Kind::Module);
                    // What is no module either is told about as the script it most likely is.
                    value.map_err(|error| if has_exports(&recipe.source) { error } else { CallError::Failed(text) })?
                }
                value => value?,
            };
            let _known = recipe.kind.set(Kind::Script);
            value
        }
    };
    value.into_function().ok_or_else(|| {
        CallError::Failed(match recipe.kind.get() {
            Some(Kind::Module) => "module has no function as its default export".to_owned(),
            _ => "script's completion value is no function: let it end with (subject, payload) => …".to_owned(),
        })
    })
}

fn has_exports(source: &str) -> bool {
    source.lines().any(|line| line.trim_start().starts_with("export ") || line.trim_start().starts_with("import "))
}

fn script<'js>(ctx: &Ctx<'js>, recipe: &Recipe) -> Result<Value<'js>, Error> {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.filename = Some(recipe.file.clone());
    ctx.eval_with_options(recipe.source.as_str(), options)
}

fn module<'js>(ctx: &Ctx<'js>, recipe: &Recipe, tick: &Function<'js>, budget: &Budget) -> Result<Value<'js>, Error> {
    let (module, loaded) = recipe.code.declare(ctx, &recipe.file, &recipe.source)?.eval()?;
    settle(ctx, loaded.into_value(), tick, budget)?;
    module.get("default")
}

/// Waits for a promise by running the script's own jobs and timers; nothing, if those can never settle it. Any other value is itself.
fn settle<'js>(ctx: &Ctx<'js>, value: Value<'js>, tick: &Function<'js>, budget: &Budget) -> Result<Option<Value<'js>>, Error> {
    loop {
        while !budget.check() && ctx.execute_pending_job() {}
        if budget.check() {
            return Err(Error::WouldBlock);
        }
        let Some(promise) = value.as_promise() else { return Ok(Some(value)) };
        if promise.state() != PromiseState::Pending {
            return promise.result().transpose();
        }
        match tick.call::<_, f64>(())? {
            left if left < 0.0 => return Ok(None),
            left => budget.wait(left),
        }
    }
}

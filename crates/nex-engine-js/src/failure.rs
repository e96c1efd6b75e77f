//! What a failed script means: out of time, out of memory, or an error of its own, told in one line.

use nex_engine::CallError;
use rquickjs::{Coerced, Ctx, Error, Value};

use crate::budget::Budget;
use crate::recipe::Recipe;

/// Longest error text passed on, in bytes.
const TEXT_BYTES: usize = 4096;

/// Judges an error of the engine; takes the pending exception.
pub(crate) fn judge(ctx: &Ctx<'_>, error: &Error, budget: &Budget, recipe: &Recipe) -> CallError {
    let thrown = match error {
        Error::Exception => Some(ctx.catch()),
        _ => None,
    };
    let timeout = || CallError::Timeout(recipe.limits.call_time);
    if budget.check() {
        return timeout();
    }
    let out_of_memory = match &thrown {
        Some(value) => is_out_of_memory(value),
        None => matches!(error, Error::Allocation),
    };
    if out_of_memory {
        return CallError::OutOfMemory(recipe.limits.memory_bytes);
    }
    let text = thrown.map_or_else(|| error.to_string(), |value| describe(&value));
    // Its text may be made by the script, too.
    if budget.check() { timeout() } else { CallError::Failed(text) }
}

/// QuickJS throws null when it cannot even make the error, and an error without a message when it can make no more than that.
fn is_out_of_memory(value: &Value<'_>) -> bool {
    let Some(exception) = value.as_exception() else { return value.is_null() };
    let message = exception.message().unwrap_or_default();
    message == "out of memory" || (message.is_empty() && exception.stack().is_none_or(|stack| stack.is_empty()))
}

/// `Error: message at place`, a thrown string as it is.
fn describe(value: &Value<'_>) -> String {
    let mut text = match value.get::<Coerced<String>>() {
        Ok(Coerced(text)) => text,
        Err(_no_text) => {
            let _exception = value.ctx().catch();
            "function threw a value without a text".to_owned()
        }
    };
    let stack = value.as_exception().and_then(rquickjs::Exception::stack).unwrap_or_default();
    if let Some(place) = stack.lines().map(str::trim).find(|line| !line.is_empty()) {
        text = format!("{text} {place}");
    }
    let cut = (0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(cut);
    text
}

//! Classifies the failure of a script: timeout, out of memory, or an error of its own as one line.

use nex_engine::CallError;
use rquickjs::{Coerced, Ctx, Error, Value};

use crate::budget::Budget;
use crate::script::Script;

/// Longest error text, in bytes; the rest is cut.
const MAX_TEXT_BYTES: usize = 4096;

/// Classifies an error of the engine; takes the pending exception.
pub(crate) fn classify(ctx: &Ctx<'_>, error: &Error, budget: &Budget, script: &Script) -> CallError {
    let thrown = match error {
        Error::Exception => Some(ctx.catch()),
        _ => None,
    };
    let timeout = || CallError::Timeout(script.limits.call_time);
    if budget.check() {
        return timeout();
    }
    let out_of_memory = match &thrown {
        Some(value) => is_out_of_memory(value),
        None => matches!(error, Error::Allocation),
    };
    if out_of_memory {
        return CallError::OutOfMemory(script.limits.memory_bytes);
    }
    let text = thrown.map_or_else(|| error.to_string(), |value| describe(&value));
    // `toString` may be the script's own code and spend the budget.
    if budget.check() { timeout() } else { CallError::Failed(text) }
}

/// QuickJS throws null if it cannot allocate the error, and an error without message if it cannot allocate the message.
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
    let cut = (0..=MAX_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(cut);
    text
}

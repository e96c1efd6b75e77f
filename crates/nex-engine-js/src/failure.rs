//! Classifies the failure of a script: timeout, out of memory, or an error of its own as one line.

use nex_engine::CallError;

use crate::budget::Budget;
use crate::script::Script;
use crate::value::{Scope, Value};

/// Longest error text, in bytes; the rest is cut.
const MAX_TEXT_BYTES: usize = 4096;
/// The engine's words for more arguments than it passes, and what helps.
const TOO_MANY: &str = "too many arguments in function call";
const TOO_MANY_HELP: &str = "decode bytes with new TextDecoder().decode(bytes), and pass long lists as an array";

/// Classifies what was thrown, or a script that was stopped; takes the exception.
pub(crate) fn classify(scope: Scope<'_>, budget: &Budget, script: &Script) -> CallError {
    let thrown = scope.take_exception();
    if let Some(spent) = budget.error() {
        return spent;
    }
    if is_out_of_memory(scope, thrown.value()) {
        return CallError::OutOfMemory(script.limits.memory_bytes);
    }
    let text = describe(scope, thrown.value(), script);
    // `toString` may be the script's own code and spend the budget.
    budget.error().unwrap_or(CallError::Failed(text))
}

/// QuickJS throws null if it cannot allocate the error, and an error without message if it cannot allocate the message.
fn is_out_of_memory(scope: Scope<'_>, thrown: Value<'_>) -> bool {
    if !thrown.is_error() {
        return thrown.is_null();
    }
    let message = property(scope, thrown, c"message");
    message == "out of memory" || (message.is_empty() && property(scope, thrown, c"stack").is_empty())
}

/// A property as a text; empty if it has none.
fn property(scope: Scope<'_>, error: Value<'_>, name: &std::ffi::CStr) -> String {
    let found = scope
        .get(error, name)
        .and_then(|found| if found.value().is_undefined() { Ok(String::new()) } else { scope.to_text(found.value()) });
    found.unwrap_or_else(|_thrown| {
        let _no_text = scope.take_exception();
        String::new()
    })
}

/// `Error: message at place`, a thrown string as it is.
pub(crate) fn describe(scope: Scope<'_>, thrown: Value<'_>, script: &Script) -> String {
    let mut text = scope.to_text(thrown).unwrap_or_else(|_thrown| {
        let _no_text = scope.take_exception();
        "function threw a value without a text".to_owned()
    });
    if text.contains(TOO_MANY) {
        text = format!("{text}: {TOO_MANY_HELP};");
    }
    let stack = if thrown.is_error() { property(scope, thrown, c"stack") } else { String::new() };
    if let Some(place) = stack.lines().map(str::trim).find(|line| !line.is_empty()) {
        text = script.mapped(format!("{text} {place}"));
    }
    let cut = (0..=MAX_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(cut);
    text
}

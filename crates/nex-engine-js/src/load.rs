//! Runs a script's top level, once for each image; gives its function.

use nex_engine::CallError;

use crate::budget::Budget;
use crate::failure::classify;
use crate::script::{Script, SourceType};
use crate::settle::settle;
use crate::value::{Fresh, Scope, Thrown, Value};

/// Evaluates the source as what it is known to be; the first time, as a script, and if that does not parse, as a module, and if that does not
/// either, as TypeScript.
pub(crate) fn evaluate<'a>(
    scope: Scope<'a>,
    tick: Value<'a>,
    to_function: Value<'a>,
    script: &Script,
    budget: &Budget,
) -> Result<Fresh<'a>, CallError> {
    let known = script.source_type.get().copied();
    let as_script = || run_script(scope, tick, script, budget).map_err(|Thrown| classify(scope, budget, script));
    let as_module = || run_module(scope, tick, script, budget).map_err(|Thrown| classify(scope, budget, script));
    let (source_type, value) = match known {
        Some(SourceType::Script) => (SourceType::Script, as_script()?),
        Some(SourceType::Module) => (SourceType::Module, as_module()?),
        None => match as_script() {
            Err(error) if is_syntax_error(&error) => match as_module() {
                Err(of_module) if is_syntax_error(&of_module) => match script.take_for_typescript() {
                    Ok(()) => return evaluate(scope, tick, to_function, script, budget),
                    Err(Some(needs_code)) => return Err(CallError::Failed(needs_code.to_string())),
                    // It is nothing. The error of the script is told, for that is more likely what it was meant to be.
                    Err(None) => return Err(if script.source().has_exports { of_module } else { error }),
                },
                given => (SourceType::Module, given?),
            },
            given => (SourceType::Script, given?),
        },
    };
    let _same = script.source_type.set(source_type);
    let function = scope.call(to_function, &[value.value()]).map_err(|Thrown| classify(scope, budget, script))?;
    if scope.is_function(function.value()) {
        return Ok(function);
    }
    Err(CallError::Failed(match source_type {
        SourceType::Module => "module has no function as its default export, nor an object with a function fetch".to_owned(),
        SourceType::Script => {
            "script's completion value is no function: let it end with (subject, payload) => …, or write export default"
                .to_owned()
        }
    }))
}

fn is_syntax_error(error: &CallError) -> bool {
    matches!(error, CallError::Failed(text) if text.starts_with("SyntaxError"))
}

/// The script's completion value; its jobs have run, too.
fn run_script<'a>(scope: Scope<'a>, tick: Value<'a>, script: &Script, budget: &Budget) -> Result<Fresh<'a>, Thrown> {
    let value = scope.run_script(&script.source().text, &script.source().file)?;
    settle(scope, scope.undefined().value(), tick, budget)?;
    Ok(value)
}

/// The module's default export.
fn run_module<'a>(scope: Scope<'a>, tick: Value<'a>, script: &Script, budget: &Budget) -> Result<Fresh<'a>, Thrown> {
    let (loaded, exports) = scope.run_module(&script.source().text, &script.source().file)?;
    settle(scope, loaded.value(), tick, budget)?;
    scope.get(exports.value(), c"default")
}

//! Runs a script's jobs and timers until what it gave is settled.

use crate::budget::Budget;
use crate::value::{Promise, Scope, Thrown, Value};

/// What a value has come to.
pub(crate) enum Settled<'a> {
    /// What the promise was fulfilled with, or the value that is none.
    Value(Value<'a>),
    /// It is pending, and nothing is left that could settle it.
    Never,
}

/// Waits for a promise; other values are returned as they are, after the jobs.
///
/// # Errors
/// [`Thrown`] if the promise is rejected, a timer throws, or the budget is spent.
pub(crate) fn settle<'a>(scope: Scope<'a>, value: Value<'a>, tick: Value<'a>, budget: &Budget) -> Result<Settled<'a>, Thrown> {
    loop {
        while !budget.check() && scope.run_job() {}
        if budget.check() {
            return Err(Thrown);
        }
        match scope.promise(value) {
            None => return Ok(Settled::Value(value)),
            Some(Promise::Fulfilled(value)) => return Ok(Settled::Value(value)),
            Some(Promise::Rejected) => return Err(Thrown),
            Some(Promise::Pending) => {}
        }
        let waited = scope.call(tick, &[])?;
        match scope.to_number(waited.value())? {
            left if left < 0.0 => return Ok(Settled::Never),
            left => budget.wait(left),
        }
    }
}

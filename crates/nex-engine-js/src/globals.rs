//! Native functions for the prelude, which defines the script's globals with them.

use std::rc::Rc;
use std::sync::Arc;

use nex_engine::{Output, Stream};
use rquickjs::{Ctx, Function, Object, Result, TypedArray};

use crate::budget::Budget;
use crate::code::Code;
use crate::host::HostCalls;
use crate::script::Script;
use crate::typed_array::copy_bytes;

const PRELUDE: &str = include_str!("prelude.js");
static PRELUDE_CODE: Code = Code::new();

/// Installs the globals; returns the function that runs due timers.
pub(crate) fn install<'js>(ctx: &Ctx<'js>, script: &Arc<Script>, budget: &Rc<Budget>) -> Result<Function<'js>> {
    let native = Object::new(ctx.clone())?;
    let output = script.output.clone();
    native.set("log", Function::new(ctx.clone(), move |is_error: bool, text: String| log(&output, is_error, &text))?)?;
    let clock = Rc::clone(budget);
    native.set("now", Function::new(ctx.clone(), move || clock.now())?)?;
    native.set("encode", Function::new(ctx.clone(), encode)?)?;
    native.set("decode", Function::new(ctx.clone(), decode)?)?;
    native.set("environment", script.environment.as_str())?;
    HostCalls::new(script, budget).install(ctx, &native)?;
    let (prelude, _loaded) = PRELUDE_CODE.declare(ctx, "nex:prelude", PRELUDE)?.eval()?;
    prelude.get::<_, Function<'js>>("default")?.call((native,))
}

fn log(output: &Output, is_error: bool, text: &str) {
    let stream = if is_error { Stream::Stderr } else { Stream::Stdout };
    text.split('\n').for_each(|line| output.line(stream, line));
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]
fn encode<'js>(ctx: Ctx<'js>, text: String) -> Result<TypedArray<'js, u8>> {
    TypedArray::new_copy(ctx, text.as_bytes())
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]
fn decode(array: TypedArray<'_, u8>, fatal: bool) -> Option<String> {
    let bytes = copy_bytes(&array, usize::MAX).unwrap_or_default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(_invalid) if fatal => None,
        Err(_invalid) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

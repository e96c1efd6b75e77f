//! What the engine calls: native functions, and the question whether to go on. No panic leaves them.

use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use rquickjs::qjs;

use crate::value::{Fresh, Scope, Thrown, Value};

/// Names of native functions are for stack traces only.
const NATIVE_NAME: &CStr = c"native";

/// Answers the engine. A context that can call it has a pointer to an `Rc` of it as its opaque pointer.
pub(crate) trait Natives {
    /// The native function of this number.
    fn call<'a>(&self, scope: Scope<'a>, which: i32, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown>;
    /// A promise was rejected and nobody waits for it, or somebody does now.
    fn rejected(&self, scope: Scope<'_>, promise: Value<'_>, reason: Value<'_>, is_handled: bool);
    /// Whether the script must stop.
    fn must_stop(&self) -> bool;
}

/// A function that calls [`Natives::call`] with this number.
#[expect(unsafe_code, reason = "the engine is C")]
pub(crate) fn function<'a>(scope: Scope<'a>, which: i32) -> Result<Fresh<'a>, Thrown> {
    let function = qjs::JSCFunctionType { generic_magic: Some(native) };
    // SAFETY: the union holds a function pointer whatever its member is called; with `generic_magic` the engine calls it as what it is.
    let function = unsafe { function.generic };
    let kind = qjs::JSCFunctionEnum_JS_CFUNC_generic_magic;
    // SAFETY: the name is a C string that outlives the call.
    let made = unsafe { qjs::JS_NewCFunction2(scope.raw(), function, NATIVE_NAME.as_ptr(), 0, kind, which) };
    // SAFETY: it was just made, in this context.
    let made = unsafe { Fresh::of(made) };
    if made.value().is_exception() { Err(Thrown) } else { Ok(made) }
}

/// Every native function; `which` tells them apart. No panic leaves it.
#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn native(
    context: *mut qjs::JSContext,
    _this: qjs::JSValue,
    count: c_int,
    given: *mut qjs::JSValue,
    which: c_int,
) -> qjs::JSValue {
    // SAFETY: the engine passes the context that it runs.
    let opaque = unsafe { qjs::JS_GetContextOpaque(context) }.cast::<Rc<dyn Natives>>();
    let (Some(context), Some(natives)) = (NonNull::new(context), NonNull::new(opaque)) else { return qjs::JS_UNDEFINED };
    // SAFETY: who made the context has put the address of a box here, which lives as long as the context.
    let natives = unsafe { natives.as_ref() };
    // SAFETY: the context runs, so it is alive; its memory is not put back before this function has returned.
    let scope = unsafe { Scope::of(context) };
    let raw = match usize::try_from(count) {
        Ok(count) if count > 0 && !given.is_null() => {
            // SAFETY: the engine passes this many arguments, alive until this function returns.
            unsafe { slice::from_raw_parts(given, count) }
        }
        _ => &[],
    };
    // SAFETY: as the arguments.
    let given: Vec<_> = raw.iter().map(|raw| unsafe { Value::of(*raw) }).collect();
    let called = catch_unwind(AssertUnwindSafe(|| natives.call(scope, which, &given)));
    match called.unwrap_or_else(|_panic| Err(scope.throw_text("the engine failed in a native function"))) {
        Ok(value) => value.into_raw(),
        Err(Thrown) => qjs::JS_EXCEPTION,
    }
}

/// Told by the engine of promises that are rejected.
#[expect(unsafe_code, reason = "called by the engine")]
pub(crate) unsafe extern "C" fn rejected(
    context: *mut qjs::JSContext,
    promise: qjs::JSValue,
    reason: qjs::JSValue,
    is_handled: bool,
    opaque: *mut c_void,
) {
    let (Some(context), Some(natives)) = (NonNull::new(context), NonNull::new(opaque.cast::<Rc<dyn Natives>>())) else { return };
    // SAFETY: as in `native`.
    let natives = unsafe { natives.as_ref() };
    // SAFETY: as in `native`.
    let scope = unsafe { Scope::of(context) };
    // SAFETY: both are alive until this function returns.
    let [promise, reason] = [promise, reason].map(|raw| unsafe { Value::of(raw) });
    let _told = catch_unwind(AssertUnwindSafe(|| natives.rejected(scope, promise, reason, is_handled)));
}

/// Asked by the engine now and then; anything but zero ends the script.
#[expect(unsafe_code, reason = "called by the engine")]
pub(crate) unsafe extern "C" fn interrupt(runtime: *mut qjs::JSRuntime, opaque: *mut c_void) -> c_int {
    let Some(natives) = NonNull::new(opaque.cast::<Rc<dyn Natives>>()) else { return 1 };
    // SAFETY: as in `native`.
    let natives = unsafe { natives.as_ref() };
    let stop = catch_unwind(AssertUnwindSafe(|| natives.must_stop())).unwrap_or(true);
    if stop {
        // For want of memory the engine would throw an error that the script can catch, instead of the one that it cannot. The arena has
        // more than the script may use, and the limit is put back with it.
        // SAFETY: the engine passes its runtime.
        unsafe { qjs::JS_SetMemoryLimit(runtime, 0) };
    }
    c_int::from(stop)
}

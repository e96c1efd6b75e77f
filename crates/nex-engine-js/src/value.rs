//! What a context of the engine can do, and its values, of which none outlives the borrow of the engine.
//!
//! None is freed one by one but where a script could make many in one call: putting the memory back frees them all.

use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use rquickjs::qjs;

/// A script has thrown; the exception waits in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thrown;

/// Access to the context as long as its engine is borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    context: NonNull<qjs::JSContext>,
    life: PhantomData<&'a ()>,
}

/// A value that somebody else holds.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    raw: qjs::JSValue,
    life: PhantomData<&'a ()>,
}

/// A value that was just made, with the one reference to it.
pub(crate) struct Fresh<'a>(Value<'a>);

/// What a promise has come to.
pub(crate) enum Promise<'a> {
    Pending,
    Fulfilled(Value<'a>),
    Rejected,
}

#[expect(unsafe_code, reason = "the engine is C")]
impl<'a> Scope<'a> {
    /// # Safety
    /// The context is alive and of this thread, and its memory is not put back, for as long as the scope lives.
    pub(crate) unsafe fn of(context: NonNull<qjs::JSContext>) -> Self {
        Self { context, life: PhantomData }
    }

    pub(crate) fn raw(self) -> *mut qjs::JSContext {
        self.context.as_ptr()
    }

    fn checked(raw: qjs::JSValue) -> Result<Fresh<'a>, Thrown> {
        let value = Value { raw, life: PhantomData };
        if value.is_exception() { Err(Thrown) } else { Ok(Fresh(value)) }
    }

    /// Runs a script; gives its completion value.
    pub(crate) fn run_script(self, source: &CStr, file: &CStr) -> Result<Fresh<'a>, Thrown> {
        Self::checked(self.eval(source, file, qjs::JS_EVAL_TYPE_GLOBAL))
    }

    /// Compiles a script of this crate's own; without its text, which would be kept with every function.
    pub(crate) fn compile(self, source: &CStr, file: &CStr) -> Result<Vec<u8>, Thrown> {
        let compiled = Self::checked(self.eval(source, file, qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY))?;
        let flags = c_int::try_from(qjs::JS_WRITE_OBJ_BYTECODE | qjs::JS_WRITE_OBJ_STRIP_SOURCE).unwrap_or_default();
        let mut length: qjs::size_t = 0;
        // SAFETY: the value is of this context; the length outlives the call.
        let written = unsafe { qjs::JS_WriteObject(self.raw(), &raw mut length, compiled.value().raw, flags) };
        self.free(compiled);
        if written.is_null() {
            return Err(Thrown);
        }
        // SAFETY: the engine gave this many bytes, which stay until they are freed.
        let code = unsafe { slice::from_raw_parts(written, to_usize(length)) }.to_vec();
        // SAFETY: the bytes are the engine's, and freed once.
        unsafe { qjs::js_free(self.raw(), written.cast()) };
        Ok(code)
    }

    /// Runs what [`Self::compile`] made in this process; gives its completion value.
    ///
    /// # Safety
    /// The code is from there: the engine does not verify it.
    pub(crate) unsafe fn run_compiled(self, code: &[u8]) -> Result<Fresh<'a>, Thrown> {
        let flags = c_int::try_from(qjs::JS_READ_OBJ_BYTECODE).unwrap_or_default();
        // SAFETY: the engine reads this many bytes, and copies what it keeps; that they are its own is the caller's promise.
        let read = unsafe { qjs::JS_ReadObject(self.raw(), code.as_ptr(), code.len() as qjs::size_t, flags) };
        let function = Self::checked(read)?;
        // SAFETY: the context is alive and of this thread; it takes the function.
        Self::checked(unsafe { qjs::JS_EvalFunction(self.raw(), function.into_raw()) })
    }

    /// Starts a module; gives the promise of its end, and its exports.
    pub(crate) fn run_module(self, source: &CStr, file: &CStr) -> Result<(Fresh<'a>, Fresh<'a>), Thrown> {
        let module = Self::checked(self.eval(source, file, qjs::JS_EVAL_TYPE_MODULE | qjs::JS_EVAL_FLAG_COMPILE_ONLY))?.0.raw;
        // SAFETY: a compiled module is a pointer to its definition, which the context keeps.
        let definition = unsafe { qjs::JS_VALUE_GET_PTR(module) }.cast::<qjs::JSModuleDef>();
        // SAFETY: the context is alive and of this thread; it takes the module.
        let promise = Self::checked(unsafe { qjs::JS_EvalFunction(self.raw(), module) })?;
        // SAFETY: the definition is the context's, and stays.
        let exports = Self::checked(unsafe { qjs::JS_GetModuleNamespace(self.raw(), definition) })?;
        Ok((promise, exports))
    }

    fn eval(self, source: &CStr, file: &CStr, flags: u32) -> qjs::JSValue {
        let flags = c_int::try_from(flags).unwrap_or_default();
        // SAFETY: the source ends with a zero behind its length, as the engine demands; both texts outlive the call.
        unsafe { qjs::JS_Eval(self.raw(), source.as_ptr(), source.count_bytes() as qjs::size_t, file.as_ptr(), flags) }
    }

    /// Calls a function with `this` undefined.
    pub(crate) fn call(self, function: Value<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        let mut raw = given.iter().map(|value| value.raw).collect::<Vec<_>>();
        let count = c_int::try_from(raw.len()).unwrap_or_default();
        // SAFETY: all values are of this context; the engine only reads the arguments, and does not keep the array.
        Self::checked(unsafe { qjs::JS_Call(self.raw(), function.raw, qjs::JS_UNDEFINED, count, raw.as_mut_ptr()) })
    }

    /// Runs one job of the queue; `false` if there is none.
    pub(crate) fn run_job(self) -> bool {
        // SAFETY: the context is alive.
        let runtime = unsafe { qjs::JS_GetRuntime(self.raw()) };
        let mut context = ptr::null_mut();
        // SAFETY: the runtime is alive and of this thread.
        let ran = unsafe { qjs::JS_ExecutePendingJob(runtime, &raw mut context) };
        if ran < 0 {
            // Its promise tells of it.
            self.free(self.take_exception());
        }
        ran != 0
    }

    /// The exception that was thrown last.
    pub(crate) fn take_exception(self) -> Fresh<'a> {
        // SAFETY: the context is alive and of this thread.
        Fresh(Value { raw: unsafe { qjs::JS_GetException(self.raw()) }, life: PhantomData })
    }

    /// Frees a value, for what a script may do many times in one call.
    pub(crate) fn free(self, value: Fresh<'a>) {
        // SAFETY: this is the one reference to a value of this context.
        unsafe { qjs::JS_FreeValue(self.raw(), value.into_raw()) };
    }

    /// Throws a text as it is.
    pub(crate) fn throw_text(self, text: &str) -> Thrown {
        if let Ok(text) = self.text(text) {
            // SAFETY: the context takes the value, which is its own.
            unsafe { qjs::JS_Throw(self.raw(), text.into_raw()) };
        }
        Thrown
    }

    pub(crate) fn undefined(self) -> Fresh<'a> {
        Fresh(Value { raw: qjs::JS_UNDEFINED, life: PhantomData })
    }

    pub(crate) fn null(self) -> Fresh<'a> {
        Fresh(Value { raw: qjs::JS_NULL, life: PhantomData })
    }

    pub(crate) fn number(self, number: f64) -> Fresh<'a> {
        Fresh(Value { raw: qjs::JS_NewFloat64(number), life: PhantomData })
    }

    pub(crate) fn text(self, text: &str) -> Result<Fresh<'a>, Thrown> {
        // SAFETY: the engine copies the bytes.
        Self::checked(unsafe { qjs::JS_NewStringLen(self.raw(), text.as_ptr().cast::<c_char>(), text.len() as qjs::size_t) })
    }

    /// A new `Uint8Array`.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<Fresh<'a>, Thrown> {
        // SAFETY: the engine copies the bytes.
        Self::checked(unsafe { qjs::JS_NewUint8ArrayCopy(self.raw(), bytes.as_ptr(), bytes.len() as qjs::size_t) })
    }

    pub(crate) fn object(self) -> Result<Fresh<'a>, Thrown> {
        // SAFETY: the context is alive and of this thread.
        Self::checked(unsafe { qjs::JS_NewObject(self.raw()) })
    }

    pub(crate) fn set(self, object: &Fresh<'a>, name: &CStr, value: Fresh<'a>) -> Result<(), Thrown> {
        let value = value.into_raw();
        // SAFETY: the engine takes the value, whose one reference this is; both are of this context.
        let set = unsafe { qjs::JS_SetPropertyStr(self.raw(), object.0.raw, name.as_ptr(), value) };
        if set < 0 { Err(Thrown) } else { Ok(()) }
    }

    pub(crate) fn get(self, object: Value<'a>, name: &CStr) -> Result<Fresh<'a>, Thrown> {
        // SAFETY: both are of this context; the name is a C string.
        Self::checked(unsafe { qjs::JS_GetPropertyStr(self.raw(), object.raw, name.as_ptr()) })
    }

    pub(crate) fn is_function(self, value: Value<'a>) -> bool {
        // SAFETY: the value is of this context.
        unsafe { qjs::JS_IsFunction(self.raw(), value.raw) }
    }

    /// What has become of a promise; `None` for other values.
    pub(crate) fn promise(self, value: Value<'a>) -> Option<Promise<'a>> {
        // SAFETY: the value is of this context.
        let state = unsafe { qjs::JS_PromiseState(self.raw(), value.raw) };
        let result = || {
            // SAFETY: the value is a promise of this context.
            Value { raw: unsafe { qjs::JS_PromiseResult(self.raw(), value.raw) }, life: PhantomData }
        };
        match state {
            qjs::JSPromiseStateEnum_JS_PROMISE_PENDING => Some(Promise::Pending),
            qjs::JSPromiseStateEnum_JS_PROMISE_FULFILLED => Some(Promise::Fulfilled(result())),
            qjs::JSPromiseStateEnum_JS_PROMISE_REJECTED => {
                // SAFETY: the context takes the value, whose one reference this is.
                unsafe { qjs::JS_Throw(self.raw(), result().raw) };
                Some(Promise::Rejected)
            }
            _ => None,
        }
    }

    /// The value as a number, by the language's rules.
    pub(crate) fn to_number(self, value: Value<'a>) -> Result<f64, Thrown> {
        let mut number = 0.0;
        // SAFETY: the value is of this context; the number outlives the call.
        let failed = unsafe { qjs::JS_ToFloat64(self.raw(), &raw mut number, value.raw) };
        if failed < 0 { Err(Thrown) } else { Ok(number) }
    }

    /// Whether the value is taken for true.
    pub(crate) fn to_bool(self, value: Value<'a>) -> bool {
        // SAFETY: the value is of this context.
        unsafe { qjs::JS_ToBool(self.raw(), value.raw) > 0 }
    }

    /// The value as a text, by the language's rules. Halves of surrogate pairs are replaced.
    pub(crate) fn to_text(self, value: Value<'a>) -> Result<String, Thrown> {
        let mut length: qjs::size_t = 0;
        // SAFETY: the value is of this context; the length outlives the call.
        let text = unsafe { qjs::JS_ToCStringLen2(self.raw(), &raw mut length, value.raw, false) };
        if text.is_null() {
            return Err(Thrown);
        }
        // SAFETY: the engine gave this many bytes, which stay until they are freed.
        let bytes = unsafe { slice::from_raw_parts(text.cast::<u8>(), to_usize(length)) };
        let copied = String::from_utf8_lossy(bytes).into_owned();
        // SAFETY: the text is the engine's, and freed once.
        unsafe { qjs::JS_FreeCString(self.raw(), text) };
        Ok(copied)
    }

    /// Lets `read` have the bytes of a `Uint8Array` or `ArrayBuffer`; `None` for other values. A detached one is empty.
    pub(crate) fn with_bytes<T>(self, value: Value<'a>, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (buffer, offset, length) = self.view(value)?;
        let mut size: qjs::size_t = 0;
        // SAFETY: the value is of this context; the size outlives the call.
        let start = unsafe { qjs::JS_GetArrayBuffer(self.raw(), &raw mut size, buffer.raw) };
        if start.is_null() {
            self.free(self.take_exception());
            return Some(read(&[]));
        }
        // SAFETY: the buffer has this many bytes, and no script runs before `read` returns: it cannot reach the context.
        let bytes = unsafe { slice::from_raw_parts(start, to_usize(size)) };
        let end = offset.saturating_add(length).min(bytes.len());
        Some(read(bytes.get(offset..end).unwrap_or_default()))
    }

    /// A buffer, and the part of it that the value is.
    fn view(self, value: Value<'a>) -> Option<(Value<'a>, usize, usize)> {
        // SAFETY: looks at the value's class only.
        if unsafe { qjs::JS_IsArrayBuffer(value.raw) } {
            return Some((value, 0, usize::MAX));
        }
        // SAFETY: looks at the value's class only.
        if unsafe { qjs::JS_GetTypedArrayType(value.raw) } != qjs::JSTypedArrayEnum_JS_TYPED_ARRAY_UINT8.cast_signed() {
            return None;
        }
        let (mut offset, mut length): (qjs::size_t, qjs::size_t) = (0, 0);
        // SAFETY: the value is a typed array of this context; the numbers outlive the call, which may leave the last out.
        let buffer =
            unsafe { qjs::JS_GetTypedArrayBuffer(self.raw(), value.raw, &raw mut offset, &raw mut length, ptr::null_mut()) };
        match Self::checked(buffer) {
            Ok(buffer) => {
                let view = (buffer.0, to_usize(offset), to_usize(length));
                // The array holds it, too.
                self.free(buffer);
                Some(view)
            }
            Err(Thrown) => {
                // Its buffer is detached or too short: nothing is left of it.
                self.free(self.take_exception());
                Some((value, 0, 0))
            }
        }
    }
}

#[expect(unsafe_code, reason = "the engine is C")]
impl Value<'_> {
    /// # Safety
    /// The value is of a context that is alive, and stays so for as long as this lives.
    pub(crate) unsafe fn of(raw: qjs::JSValue) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(crate) fn raw(self) -> qjs::JSValue {
        self.raw
    }

    pub(crate) fn is_exception(self) -> bool {
        // SAFETY: looks at the value's tag only.
        unsafe { qjs::JS_IsException(self.raw) }
    }

    pub(crate) fn is_error(self) -> bool {
        // SAFETY: looks at the value's class only.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    pub(crate) fn is_null(self) -> bool {
        // SAFETY: looks at the value's tag only.
        unsafe { qjs::JS_IsNull(self.raw) }
    }

    pub(crate) fn is_undefined(self) -> bool {
        // SAFETY: looks at the value's tag only.
        unsafe { qjs::JS_IsUndefined(self.raw) }
    }
}

impl<'a> Fresh<'a> {
    /// Gives the one reference away.
    pub(crate) fn into_raw(self) -> qjs::JSValue {
        self.0.raw
    }

    /// # Safety
    /// As [`Value::of`]; and this is the one reference to it.
    #[expect(unsafe_code, reason = "the engine is C")]
    pub(crate) unsafe fn of(raw: qjs::JSValue) -> Self {
        Self(Value { raw, life: PhantomData })
    }

    pub(crate) fn value(&self) -> Value<'a> {
        self.0
    }
}

fn to_usize(size: qjs::size_t) -> usize {
    usize::try_from(size).unwrap_or_default()
}

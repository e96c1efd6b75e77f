//! The engine: one runtime with one context in an arena. What it offers is safe.

use std::cell::RefCell;
use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use rquickjs::qjs;

use crate::arena::Arena;
use crate::callback::{Natives, interrupt, rejected};
use crate::image::Restore;
use crate::value::{Fresh, Scope, Value};

/// Native stack that a script may use; the worker's thread has more.
const MAX_STACK_BYTES: qjs::size_t = 2 * 1024 * 1024;

/// A runtime in its arena, on one thread.
pub(crate) struct Vm {
    context: NonNull<qjs::JSContext>,
    runtime: NonNull<qjs::JSRuntime>,
    /// Values that are part of the image.
    kept: RefCell<Vec<qjs::JSValue>>,
    arena: Arena,
    // Has an address that the image knows.
    _natives: Box<Rc<dyn Natives>>,
}

/// A value that the image keeps, by its number in its [`Vm`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept(usize);

#[expect(unsafe_code, reason = "the engine is C")]
impl Vm {
    /// A runtime and a context with the language's own globals.
    pub(crate) fn new(arena: Arena, natives: Rc<dyn Natives>) -> io::Result<Self> {
        let natives = Box::new(natives);
        let opaque = ptr::from_ref(&*natives).cast_mut().cast::<c_void>();
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let functions = Arena::FUNCTIONS;
        // SAFETY: the functions are copied, and manage the memory behind the pointer, which lives as long as the runtime.
        let runtime = unsafe { qjs::JS_NewRuntime2(&raw const functions, arena.opaque()) };
        let runtime = NonNull::new(runtime).ok_or_else(full)?;
        // SAFETY: the runtime was just made, on this thread.
        unsafe { qjs::JS_SetMaxStackSize(runtime.as_ptr(), MAX_STACK_BYTES) };
        // SAFETY: as above.
        let context = NonNull::new(unsafe { qjs::JS_NewContext(runtime.as_ptr()) }).ok_or_else(full)?;
        // SAFETY: the context was just made; the box behind `opaque` lives as long as the `Vm`.
        unsafe { qjs::JS_SetContextOpaque(context.as_ptr(), opaque) };
        // SAFETY: as above.
        unsafe { qjs::JS_SetInterruptHandler(runtime.as_ptr(), Some(interrupt), opaque) };
        // SAFETY: as above.
        unsafe { qjs::JS_SetHostPromiseRejectionTracker(runtime.as_ptr(), Some(rejected), opaque) };
        Ok(Self { context, runtime, kept: RefCell::default(), arena, _natives: natives })
    }

    /// Everything that can be done with the context. Call it anew on each thread's way into the engine: it tells it where the stack is.
    pub(crate) fn enter(&self) -> Scope<'_> {
        // SAFETY: the runtime is alive and of this thread.
        unsafe { qjs::JS_UpdateStackTop(self.runtime.as_ptr()) };
        // SAFETY: putting the memory back needs this engine exclusively, so not as long as the scope borrows it.
        unsafe { Scope::of(self.context) }
    }

    /// Most that the engine may allocate, in bytes, with what it has already.
    pub(crate) fn limit_memory(&self, bytes: usize) {
        // SAFETY: the runtime is alive and of this thread.
        unsafe { qjs::JS_SetMemoryLimit(self.runtime.as_ptr(), bytes.max(1) as qjs::size_t) };
    }

    /// Collects garbage, and not again before `more` bytes were allocated.
    pub(crate) fn collect_garbage(&self, more: usize) {
        // SAFETY: the runtime is alive and of this thread.
        unsafe { qjs::JS_RunGC(self.runtime.as_ptr()) };
        // SAFETY: a structure of numbers, for which zeros are valid.
        let mut usage = unsafe { std::mem::zeroed::<qjs::JSMemoryUsage>() };
        // SAFETY: the structure is of the engine's size and outlives the call.
        unsafe { qjs::JS_ComputeMemoryUsage(self.runtime.as_ptr(), &raw mut usage) };
        let threshold = qjs::size_t::try_from(usage.malloc_size).unwrap_or_default().saturating_add(more as qjs::size_t);
        // SAFETY: the runtime is alive and of this thread.
        unsafe { qjs::JS_SetGCThreshold(self.runtime.as_ptr(), threshold) };
    }

    /// Makes the present state the image.
    pub(crate) fn take_image(&mut self, way: Restore) -> io::Result<()> {
        self.arena.take_image(way)
    }

    /// Keeps a value of this engine for later calls; must come before the image is taken.
    pub(crate) fn keep(&self, value: &Fresh<'_>) -> Kept {
        let mut kept = self.kept.borrow_mut();
        kept.push(value.value().raw());
        Kept(kept.len() - 1)
    }

    /// A value that was kept.
    pub(crate) fn kept(&self, kept: Kept) -> Value<'_> {
        let raw = self.kept.borrow().get(kept.0).copied().unwrap_or(qjs::JS_UNDEFINED);
        // SAFETY: it was kept before the image was taken, of which it is a part; the image is put back only when nobody borrows this.
        unsafe { Value::of(raw) }
    }

    /// Puts the image back. Whoever gets an error must drop this.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        self.arena.restore()
    }

    /// All memory of the engine.
    pub(crate) fn memory(&self) -> &[u8] {
        self.arena.contents()
    }
}

//! Bytecode cache: a module is parsed once and loaded from then on, since parsing dominates the cost of a context.

use std::sync::OnceLock;

use rquickjs::module::{Declared, WriteOptions};
use rquickjs::{Ctx, Module, Result};

/// The bytecode of one module, compiled by the first context that needs it.
#[derive(Debug, Default)]
pub(crate) struct Code(OnceLock<Vec<u8>>);

impl Code {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Declares the module without evaluating it. `self` must outlive the runtime; `source` must be the same in every call.
    pub(crate) fn declare<'js>(&self, ctx: &Ctx<'js>, name: &str, source: &str) -> Result<Module<'js, Declared>> {
        if let Some(bytecode) = self.0.get() {
            return load(ctx, bytecode);
        }
        let module = Module::declare(ctx.clone(), name, source)?;
        // If this fails the next context compiles again.
        if let Ok(bytecode) = module.write(WriteOptions::default()) {
            let _first = self.0.set(bytecode);
        }
        Ok(module)
    }
}

#[expect(unsafe_code, reason = "there is no safe way to load bytecode")]
fn load<'js>(ctx: &Ctx<'js>, bytecode: &[u8]) -> Result<Module<'js, Declared>> {
    // SAFETY: the engine of this process wrote these bytes, they never left the process, and they outlive the runtime: they belong to
    // a static, or to the script, which an isolate drops after its context.
    unsafe { Module::load(ctx.clone(), bytecode) }
}

//! Modules that are compiled once and then only loaded, since parsing costs a context more than everything else.

use std::sync::OnceLock;

use rquickjs::module::{Declared, WriteOptions};
use rquickjs::{Ctx, Module, Result};

/// The bytecode of one module, made by the first context that needs it.
#[derive(Debug, Default)]
pub(crate) struct Code(OnceLock<Vec<u8>>);

impl Code {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The module, not yet evaluated. `self` must outlive the runtime, and `source` be the same every time.
    pub(crate) fn declare<'js>(&self, ctx: &Ctx<'js>, name: &str, source: &str) -> Result<Module<'js, Declared>> {
        if let Some(bytecode) = self.0.get() {
            return load(ctx, bytecode);
        }
        let module = Module::declare(ctx.clone(), name, source)?;
        // Without bytecode the next context compiles again.
        if let Ok(bytecode) = module.write(WriteOptions::default()) {
            let _first = self.0.set(bytecode);
        }
        Ok(module)
    }
}

#[expect(unsafe_code, reason = "there is no safe way to load bytecode")]
fn load<'js>(ctx: &Ctx<'js>, bytecode: &[u8]) -> Result<Module<'js, Declared>> {
    // SAFETY: the engine of this process wrote these bytes, they never left it, and they are kept until the runtime is gone: by a
    // static, or by the recipe that an isolate drops after its context.
    unsafe { Module::load(ctx.clone(), bytecode) }
}

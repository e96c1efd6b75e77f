//! `wasi:config/store`: the workload's environment.

use wasmtime::component::{HasSelf, Linker};

use crate::state::State;

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod rc1 {
    wasmtime::component::bindgen!({ path: "wit/config-rc1", world: "imports", imports: { default: trappable } });
}

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod draft {
    wasmtime::component::bindgen!({ path: "wit/config-draft", world: "imports", imports: { default: trappable } });
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    rc1::wasi::config::store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    draft::wasi::config::store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

macro_rules! store {
    ($bindings:ident) => {
        impl $bindings::wasi::config::store::Host for State {
            fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, $bindings::wasi::config::store::Error>> {
                Ok(Ok(self.variable(&key).map(str::to_owned)))
            }

            fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, $bindings::wasi::config::store::Error>> {
                Ok(Ok(self.environment.to_vec()))
            }
        }
    };
}

store!(rc1);
store!(draft);

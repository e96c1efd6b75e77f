//! What components may import besides `wasi:cli`: the host services and the workload's environment, by the interfaces of WASI's drafts and of
//! wasmCloud, so that components built for them, or for Spin, run as they are.
//!
//! | interface | versions | what it is here |
//! |---|---|---|
//! | `wasi:keyvalue` | `0.2.0-draft`, `0.2.0-draft2` | the workload's own bucket, as `kv` |
//! | `wasi:config/store` | `0.2.0-draft-2024-09-27`, `0.2.0-rc.1` | its environment |
//! | `wasi:logging` | `0.1.0-draft` | its log |
//! | `wasi:blobstore` | `0.2.0-draft` | the workload's own object bucket, as `objectstore` |
//! | `wasi:http` | `0.2` | `http`; a component that exports its `incoming-handler` is called with requests |
//! | `wasi:messaging` | `0.2.0-draft` | `messaging`; a component that exports its `incoming-handler` is called with the message |
//! | `wasmcloud:messaging` | `0.2.0` | `messaging`; a component that exports its `handler` is called with the message |

mod answer;
mod blobstore;
mod config;
pub(crate) mod http;
mod keyvalue;
mod logging;
pub(crate) mod messaging;
pub(crate) mod wasi_messaging;

use wasmtime::component::Linker;

use crate::state::State;

/// Adds all of them.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    blobstore::add_to_linker(linker)?;
    config::add_to_linker(linker)?;
    http::add_to_linker(linker)?;
    keyvalue::add_to_linker(linker)?;
    logging::add_to_linker(linker)?;
    messaging::add_to_linker(linker)?;
    wasi_messaging::add_to_linker(linker)
}

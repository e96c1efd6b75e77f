//! The internal bus: a `nats-server` of the node's own that only its agents can reach, and that outlives the node process.

mod auth;
mod internal;
mod proof;
mod server;
mod version;

pub use auth::BusKeys;
pub use internal::{InternalBus, Listen};
pub use server::{BusError, BusServer, find_nats_server};
pub use version::{VersionError, program_version, server_lacks};

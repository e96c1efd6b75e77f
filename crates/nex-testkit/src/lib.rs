//! Test support: a real nats-server, waiting with a deadline, explicit skips, small guest programs, OCI images and a registry of them.
//!
//! Depends on no other crate of the workspace, so that all can use it. A failure here fails the test: it panics and says what to do.

mod binaries;
pub mod machines;
mod nats;
mod skip;
mod wait;

pub mod guest;
pub mod image;
pub mod registry;
pub mod signer;

pub use binaries::{dist_binary, nats_server_binary};
pub use nats::{NatsOptions, NatsServer};
#[doc(hidden)]
pub use skip::announce;
pub use wait::eventually;

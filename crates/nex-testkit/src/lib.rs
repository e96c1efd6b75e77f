//! What tests share: a real nats-server, waiting with a deadline, skipping aloud, small guest programs.
//!
//! Depends on no other crate of the workspace, so the lowest of them can use it. A thing that fails here fails the test:
//! it panics, and says what to do.

mod binaries;
pub mod machines;
mod nats;
mod skip;
mod wait;

pub mod guest;

pub use binaries::{dist_binary, nats_server_binary};
pub use nats::{NatsOptions, NatsServer};
#[doc(hidden)]
pub use skip::announce;
pub use wait::eventually;

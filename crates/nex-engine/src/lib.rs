//! What runs a workload inside an agent: the contract that every engine keeps, and nothing of NATS.
//!
//! A *service* runs until it ends or is stopped ([`native`]); a *function* ([`Function`]) is called. The agent verifies the
//! artifact's digest before any engine sees it.

mod error;
mod function;
mod host;
mod launch;
pub mod native;
mod output;

pub use error::StartError;
pub use function::{Call, CallError, Function};
pub use host::HostClient;
pub use launch::{Launch, Limits};
pub use output::{LINE_BYTES, Line, LineWriter, Output, Stream};

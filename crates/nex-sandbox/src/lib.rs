//! Sandboxes: each holds one agent. This crate creates and removes them.
//!
//! [`process`] is a jailed child process, [`microvm`] a machine with its own kernel. A sandbox knows nothing of what its agent does, and nothing of
//! NATS. It is used once and never again.
//!
//! Nothing leaks: a creation that fails removes what it had made, a dropped sandbox is killed and removed, and what a killed node
//! leaves behind is found by its [`SandboxRecord`] or by a provider's sweep.

mod error;
mod host;
mod id;
pub mod microvm;
mod output;
pub mod process;
mod record;
mod removal;
mod report;
mod sandbox;
mod spec;
mod tree;
mod uids;

pub use error::{AdoptError, AttachError, CreateError, GuestError};
pub use id::{InvalidName, SandboxId};
pub use record::{SandboxRecord, remove_leftover};
pub use report::ExitReport;
pub use sandbox::{Sandbox, SandboxProvider};
pub use spec::{MachineSize, SandboxSpec};

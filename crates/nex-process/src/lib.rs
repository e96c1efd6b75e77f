//! Ownership of running things: tasks, deadlines, child processes, cgroups and the jail that an agent enters.
//!
//! Only this crate starts tasks and processes. Its `unsafe` code is a few system calls that no safe crate wraps.

pub mod cgroup;
pub mod child;
pub mod confinement;
pub mod crash_point;
pub mod deadline;
pub mod guest;
pub mod jail;
pub mod lines;
mod process_id;
pub mod scope;
pub mod shares;
pub mod tap;
pub mod tsc;
pub mod usage;

pub use child::{Child, ChildSpec, Exit, LineSink, Output, Rung, SpawnError, Stdin, Stopped};
pub use confinement::Confinement;
pub use crash_point::crash_point;
pub use deadline::{Deadline, Elapsed};
pub use nix::sys::signal::Signal;
pub use process_id::ProcessId;
pub use scope::TaskScope;

//! Flags that several commands share. A command's own arguments are in its file under [`crate::cmd`].

mod connection;
mod keys;
mod limits;
mod logging;
mod node;
pub(crate) mod policy;
mod used;
mod workload;

pub(crate) use connection::ConnectionArgs;
pub(crate) use keys::KeyArgs;
pub(crate) use limits::{LimitArgs, milliseconds};
pub(crate) use logging::{LogLevel, LogTarget, LoggingArgs, TimeFormat};
pub(crate) use node::{Loaded, NodeArgs, find_agent};
pub(crate) use policy::PolicyArgs;
pub(crate) use used::Used;
pub(crate) use workload::{SETTLE, WorkloadArgs};

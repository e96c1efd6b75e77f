//! Flags that several commands share. A command's own arguments are in its file under [`crate::cmd`].

mod connection;
mod logging;
mod node;
mod workload;

pub(crate) use connection::ConnectionArgs;
pub(crate) use logging::{LogLevel, LogTarget, LoggingArgs, TimeFormat};
pub(crate) use node::{Loaded, NodeArgs, find_agent};
pub(crate) use workload::{SETTLE, WorkloadArgs};

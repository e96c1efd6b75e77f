//! Sandboxes that are jailed processes: namespaces, own uid, cgroup, Landlock, seccomp, as far as the host has them.
//!
//! The agent confines itself (`nex_process::jail`); this side finds out what the host gives, prepares the directories, puts the first
//! process into its cgroup *before* it is told anything, then hands it the rules and its identity.
//!
//! ```text
//! <state>/agents/<id>/record.json   how to remove it, written before the agent runs
//!                     artifact/     the agent's /artifact, read-only
//!                     work/         scratch, only where there is no own root
//! ```

mod config;
mod create;
mod probe;
mod provider;
mod sandbox;
mod shared;
mod tool;

pub use config::{InvalidConfig, Limits, ProcessConfig, ProcessNetwork};
pub use probe::{OpenError, probe};
pub use provider::ProcessProvider;
pub use sandbox::ProcessSandbox;
pub use tool::{ImageFiles, ToolError};

//! Resources of a node with microVMs: [`find()`] reports what is missing, [`install()`] installs what the manifest has.

pub mod distribution;
pub mod fetch;
mod find;
pub mod install;
pub mod manifest;
mod paths;
mod resource;
pub(crate) mod unpack;

pub use fetch::{FetchError, Mirror};
pub use find::{ResourceStatus, find};
pub use install::{InstallError, install, verify};
pub use paths::{CNI_BIN_PATH, Layout, ResourcePaths};
pub use resource::{Resource, Vmm};

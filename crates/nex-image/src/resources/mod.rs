//! Where the pieces of a node with microVMs are, and what is missing. Finding only looks; [`install()`] brings what the manifest knows.

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

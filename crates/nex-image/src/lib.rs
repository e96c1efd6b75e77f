//! Root file systems from images, and what a node with microVMs needs: kernel, virtual machine monitors, plug-ins. All functions block.
//!
//! | room | what is in it |
//! |---|---|
//! | [`rootfs`] | builds root images: a base and the agent |
//! | [`workload`] | roots of workloads that come as OCI images |
//! | `base`, `oci`, `layers` | bases: directories, tarballs, OCI layouts, archives and registries |
//! | [`kernel`] | converts the kernel of libkrunfw |
//! | [`resources`] | finds and installs resources |
//! | [`progress`], [`mod@file`] | progress reports; bounded reads and atomic writes |

pub mod base;
pub mod file;
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod kernel;
mod layers;
pub mod oci;
pub mod progress;
pub mod resources;
pub mod rootfs;
pub mod workload;

//! What a node with microVMs needs beside itself: the root image of its guests, a kernel, virtual machine monitors, plug-ins.
//! Everything blocks; call it from a thread that may.
//!
//! | room | what is in it |
//! |---|---|
//! | [`rootfs`] | builds root images: a base and the agent |
//! | `base`, `oci`, `layers` | bases: directories, tarballs, OCI layouts, archives and registries |
//! | [`kernel`] | makes a bootable kernel of libkrunfw |
//! | [`resources`] | where everything is, what is missing, and how it is installed |
//! | [`progress`], [`mod@file`] | how far it is; files written whole or not at all |

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

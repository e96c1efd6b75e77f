//! Virtual machine monitors: Firecracker and QEMU's `microvm` machine behind one driver interface.
//!
//! ```text
//! Firecracker / Qemu ── boot(MachineSpec) ──► Box<dyn Machine> ── snapshot ──► Snapshot
//!        ▲                                      channel, swap_drive, kill         │
//!        └───────────────────────── restore(MachineSpec, &Snapshot) ◄─────────────┘
//! ```
//!
//! A machine's files are all in one directory of its own, which the caller makes and removes; every path that the monitor is given is a name
//! in it, so that a snapshot of one machine can be loaded by another. What a guest is for, and what is said on its channel, is not
//! known here; nor is how a tap came to be.
//!
//! *Trust:* a monitor may be in the hands of its guest. Its answers are bounded and checked, it cannot write into the images it is given,
//! and nothing that it made is followed or believed.

mod error;
mod files;
mod firecracker;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
mod machine;
mod process;
mod qemu;
mod spec;

pub use error::VmmError;
pub use firecracker::{Firecracker, Jailer};
pub use machine::{Machine, Snapshot, Vmm, VmmKind};
pub use qemu::{Accel, Qemu};
pub use spec::{MAX_DRIVES, Mac, MachineSpec, Nic, RateLimiter, TokenBucket};

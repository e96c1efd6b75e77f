//! Virtual machine monitors: Firecracker and QEMU's `microvm` machine behind one driver interface.
//!
//! ```text
//! Firecracker / Qemu ── boot(MachineSpec) ──► Box<dyn Machine> ── snapshot ──► Snapshot
//!        ▲                                      channel, swap_drive, kill         │
//!        └───────────────────────── restore(MachineSpec, &Snapshot) ◄─────────────┘
//! ```
//!
//! `Vmm::adopt` takes over a machine that another process started.
//!
//! A machine's files are all in one directory of its own, which the caller makes and removes; every path that the monitor is given is a name
//! in it, so that a snapshot of one machine can be loaded by another. This crate does not know
//! what a guest is for, what its channel carries, or how its tap was made.
//!
//! *Trust:* a guest may have taken over its monitor. The monitor's answers are bounded and checked, it cannot write to its images, and
//! no link or path that it made is followed.

mod adopted;
mod error;
mod files;
mod firecracker;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
mod kind;
mod machine;
mod process;
mod qemu;
mod spec;

pub use error::VmmError;
pub use firecracker::{Firecracker, Jailer};
pub use kind::VmmKind;
pub use machine::{LeftMachine, Machine, Snapshot, Vmm};
pub use qemu::{Accel, Qemu};
pub use spec::{MAX_DRIVES, Mac, MachineSpec, Nic, RateLimiter, TokenBucket};

//! `cargo xtask lab`: a machine of its own to try things in, which real hardware has and a developer's machine may lack: a `/dev/kvm` that
//! runs guests (QEMU emulates a processor with SVM), cgroup v2 only, Landlock, the kernel of a distribution.
//!
//! ```text
//! QEMU, emulating ── Debian's kernel ── initramfs: host's / read-only (9p) beneath memory (overlay) ── start ── the command
//!                                                  target/lab/<pid>/ (9p, writable): command in, status out
//! ```
//!
//! What is written there is lost, but for `/run/lab/out`, which is `target/lab/out` on the host.

mod kernel;
mod machine;
mod suite;

pub(crate) use machine::{Lab, has_firecracker, quote, run, script};
pub(crate) use suite::test;

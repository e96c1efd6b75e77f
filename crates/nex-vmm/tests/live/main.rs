//! Real machines under real monitors; what is missing here is said and skipped.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "helpers of tests")]

mod firecracker;
mod fixture;
mod qemu;

//! MicroVMs in tests: whether this machine supports them, and whether tests of nodes run in them.

use std::path::PathBuf;
use std::time::Duration;

/// Factor by which emulation slows things down, at most.
const EMULATION_FACTOR: u32 = 6;

/// The directory with the kernel and the root image of tests: `NEX_TEST_RESOURCES`, set by `cargo xtask test`.
#[must_use]
pub fn resources() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("NEX_TEST_RESOURCES")?);
    (dir.join("vmlinux").is_file() && dir.join("rootfs.img").is_file()).then_some(dir)
}

/// Why tests cannot boot machines here; `None` if they can.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "set by the test runner")]
pub fn no_machines() -> Option<String> {
    if resources().is_some() {
        return None;
    }
    Some(
        std::env::var("NEX_TEST_NO_MACHINES")
            .unwrap_or_else(|_unset| "run by `cargo xtask test`, which gets a kernel".to_owned()),
    )
}

/// The sandbox of tests of nodes: `NEX_TEST_SANDBOX`, or jailed processes.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "set by the test runner")]
pub fn sandbox() -> String {
    std::env::var("NEX_TEST_SANDBOX").unwrap_or_else(|_unset| "process".to_owned())
}

/// The monitor of tests that need microVMs: the one that `NEX_TEST_SANDBOX` names, or QEMU.
#[must_use]
pub fn monitor() -> String {
    if in_machines() { sandbox() } else { "qemu".to_owned() }
}

/// Whether tests of nodes run in microVMs.
#[must_use]
pub fn in_machines() -> bool {
    sandbox() != "process"
}

/// Scales a timeout for jailed processes to the sandbox of the test.
#[must_use]
pub fn timeout(time: Duration) -> Duration {
    if in_machines() { time * EMULATION_FACTOR } else { time }
}

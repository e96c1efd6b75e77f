//! MicroVMs in tests: whether there can be any here, and the choice to run a node's tests in them.

use std::path::PathBuf;
use std::time::Duration;

/// How much longer things take on emulated processors, at most.
const EMULATED: u32 = 6;

/// The directory with the kernel and the root image of tests: `NEX_TEST_RESOURCES`, set by `cargo xtask test`.
#[must_use]
pub fn resources() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("NEX_TEST_RESOURCES")?);
    (dir.join("vmlinux").is_file() && dir.join("rootfs.img").is_file()).then_some(dir)
}

/// Why no machine can be booted by tests here; nothing if one can.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "what the runner found is read where it is used")]
pub fn no_machines() -> Option<String> {
    if resources().is_some() {
        return None;
    }
    Some(
        std::env::var("NEX_TEST_NO_MACHINES")
            .unwrap_or_else(|_unset| "run by `cargo xtask test`, which gets a kernel".to_owned()),
    )
}

/// The kind of sandbox in which tests of nodes are to run: `NEX_TEST_SANDBOX`, or jailed processes.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the runner's wish, read where it is obeyed")]
pub fn sandbox() -> String {
    std::env::var("NEX_TEST_SANDBOX").unwrap_or_else(|_unset| "process".to_owned())
}

/// Whether tests of nodes run in microVMs.
#[must_use]
pub fn in_machines() -> bool {
    sandbox() != "process"
}

/// How long to wait for what takes this long at most in a jailed process.
#[must_use]
pub fn patience(time: Duration) -> Duration {
    if in_machines() { time * EMULATED } else { time }
}

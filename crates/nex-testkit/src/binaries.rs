//! Paths of the programs that tests run, built or installed by `cargo xtask test`.

use std::path::PathBuf;

/// The nats-server to use: `NEX_NATS_SERVER`, else `tools/nats-server` in the target directory, else the one on the `PATH`.
///
/// # Panics
/// When there is none.
#[must_use]
#[expect(clippy::panic, reason = "a test without nats-server cannot pass")]
pub fn nats_server_binary() -> PathBuf {
    if let Some(chosen) = std::env::var_os("NEX_NATS_SERVER") {
        return chosen.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file());
    in_target("tools/nats-server").or(on_path).unwrap_or_else(|| {
        panic!("there is no nats-server: run the tests by `cargo xtask test`, which installs one, or set NEX_NATS_SERVER")
    })
}

/// A program of this workspace for end-to-end tests (`nex`, `nex-agent`, `echo-service`): in `NEX_DIST`, else in `dist` in the target
/// directory.
///
/// # Panics
/// When it was not built.
#[must_use]
#[expect(clippy::panic, reason = "an end-to-end test without the program cannot pass")]
pub fn dist_binary(name: &str) -> PathBuf {
    let chosen = std::env::var_os("NEX_DIST").map(|dir| PathBuf::from(dir).join(name));
    chosen.or_else(|| in_target(&format!("dist/{name}"))).unwrap_or_else(|| {
        panic!("{name} is not in target/dist: run the tests by `cargo xtask test`, or `cargo xtask dist --dev` before them")
    })
}

/// A file in the target directory, found from the path of the test: `target/<host>/debug/deps/<test>`.
fn in_target(file: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|dir| dir.join(file)).find(|file| file.is_file())
}

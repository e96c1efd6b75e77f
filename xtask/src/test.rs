//! `cargo xtask test`: everything the tests need, then the tests.

use anyhow::Result;

use crate::{dist, shell, tools};

/// Gets nats-server, builds the binaries that end-to-end tests run, runs the tests. Arguments go to `cargo test`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let mut command = shell::cargo();
    command.arg("test");
    // Cargo would quietly ignore a choice of packages beside --workspace.
    let chosen = args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    if !chosen {
        command.arg("--workspace");
    }
    shell::run(command.args(args).env("NEX_NATS_SERVER", nats_server).env("NEX_DIST", dist))
}

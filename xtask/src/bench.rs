//! `cargo xtask bench`: builds the binaries, optimised but without the slow last steps of a release, and measures them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{machines, shell, tools};

/// The benchmark and the binaries it runs; the last one installs the kernel and the root image of microVMs.
const PACKAGES: [&str; 4] = ["nex-bench", "nex-agent", "echo-service", "nex-cli"];
/// Arguments that select microVMs.
const MICROVMS: [&str; 2] = ["--microvm", "--sandbox"];

/// `cargo xtask soak`: the same program with what repeats and kills.
pub(crate) fn soak(args: &[String]) -> Result<()> {
    let args: Vec<String> = std::iter::once("--soak".to_owned()).chain(args.iter().cloned()).collect();
    run(&args)
}

/// Builds and runs `nex-bench`; arguments go to it.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let nats_server = tools::nats_server()?;
    let built = build()?;
    let program = |name: &str| built.iter().find(|file| file.file_name().is_some_and(|file| file == name));
    let bench = program("nex-bench").context("cargo built no nex-bench")?;
    let dist = program("nex-agent").and_then(|file| file.parent()).context("cargo built no nex-agent")?;
    let mut command = Command::new(bench);
    command.args(args).env("NEX_NATS_SERVER", nats_server).env("NEX_DIST", dist);
    if args.iter().any(|arg| MICROVMS.contains(&arg.as_str())) {
        let machines = machines::prepare(dist, machines::BENCHMARKS).context("there can be no microVMs here")?;
        command.env("NEX_TEST_RESOURCES", machines.resources);
    }
    shell::run(&mut command)
}

fn build() -> Result<Vec<PathBuf>> {
    let cargo = shell::cargo();
    // Build at low priority, because others may use the machine.
    let mut command = Command::new("nice");
    command.args(["-n", "15"]).arg(cargo.get_program()).current_dir(shell::root());
    command.args(["build", "--bins", "--profile", "bench-fast", "--message-format=json-render-diagnostics"]);
    command.args(PACKAGES.iter().flat_map(|name| ["--package", name]));
    println!("\n$ {}", shell::line(&command));
    let messages = shell::output(&mut command)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| Some(message.get("executable")?.as_str()?.into())).collect())
}

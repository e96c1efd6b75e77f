//! `nex-agent`: hosts instances of workloads. Started by a node inside a sandbox, told by standard input who it is, heard only on
//! the internal bus.
//!
//! ```text
//! stdin ─► jail ─► bus ─► handshake ─► deploy ─► (invocations, logs, events) ─► undeploy ─► gone with its sandbox
//! ```
//!
//! As process 1 of a virtual machine it is that machine's [`init`] first. With `--compile` it runs no workload, but compiles one;
//! with `--image` it builds the root of one.

mod artifact;
mod connections;
mod direct;
mod engines;
mod event;
mod health;
mod host_client;
mod init;
mod instance;
mod instances;
mod invoke;
mod lockdown;
mod output;
mod probe;
mod report;
mod session;
mod streaming;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use nex_process::jail;
use nex_protocol::agent::Identity;

/// Argument of an agent that was started by the init of a guest.
const IN_GUEST: &str = "--guest";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--version"), _) => say(&format!("nex-agent {}", env!("CARGO_PKG_VERSION"))),
        (Some("--compile"), _) => exit_code(compile()),
        (Some("--image"), Some(spool)) => exit_code(build_image(&spool)),
        (Some("--probe"), uid) => jail::probe_main(uid.and_then(|uid| uid.parse().ok()).unwrap_or(65_534)),
        // Whatever the kernel's command line left for it.
        _ if std::process::id() == 1 => init::main(),
        (Some(IN_GUEST), waiting) => exit_code(loaded(waiting.as_deref()).and_then(|()| live(Place::Guest))),
        (Some(_), _) => usage(),
        (None, _) if std::io::stdin().is_terminal() => usage(),
        (None, _) => exit_code(live(Place::Host)),
    }
}

/// Threads that read files and compile: an agent has few processes and threads, and may have many instances to start.
const BLOCKING_THREADS: usize = 16;

/// Where an agent finds itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Beside its node.
    Host,
    /// In a virtual machine of its own.
    Guest,
}

fn exit_code(lived: anyhow::Result<()>) -> ExitCode {
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("nex-agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells the init, by closing the descriptor that it gave, that nothing is left to do but to read.
fn loaded(descriptor: Option<&str>) -> anyhow::Result<()> {
    let Some(descriptor) = descriptor else { return Ok(()) };
    let descriptor: i32 = descriptor.parse().context("the init's descriptor is no number")?;
    nix::unistd::close(descriptor).context("the init's descriptor cannot be closed")
}

/// Enters the jail while there is but one thread, then lives.
fn live(place: Place) -> anyhow::Result<()> {
    let entered = jail::enter(std::io::stdin().lock()).context("cannot enter the jail")?;
    let identity: Identity =
        serde_json::from_slice(&entered.identity).context("the identity on standard input is not readable")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let lived = runtime.block_on(session::run(identity, &entered, place));
    runtime.shutdown_background();
    lived
}

/// Enters the jail, compiles its artifact to standard output, and runs nothing of it.
fn compile() -> anyhow::Result<()> {
    let entered = jail::enter(std::io::stdin().lock()).context("cannot enter the jail")?;
    jail::restrict_to_functions().context("cannot give up what compiling does not need")?;
    let compiled = nex_engine_wasm::compile(&entered.layout.artifact.join("artifact"))?;
    std::io::stdout().write_all(&compiled).context("cannot write what was compiled")
}

/// Enters the jail and builds the root of the image in its archive on standard output, with the contents of files passing through the
/// descriptor that it is given.
fn build_image(spool: &str) -> anyhow::Result<()> {
    let spool: u32 = spool.parse().context("the descriptor for contents is no number")?;
    // Opened again before the jail, where neither could be: as files with a place of their own.
    let open = |descriptor: u32| File::options().read(descriptor != 1).write(true).open(format!("/proc/self/fd/{descriptor}"));
    let (spool, mut out) = (open(spool), open(1));
    let entered = jail::enter(std::io::stdin().lock()).context("cannot enter the jail")?;
    jail::restrict_to_functions().context("cannot give up what building does not need")?;
    let (spool, out) = (spool.context("cannot open the file for contents")?, out.as_mut());
    let out = out.map_err(|error| anyhow::anyhow!("cannot open the file of the root: {error}"))?;
    nex_image::workload::build(&entered.layout.artifact.join("artifact"), spool, out)?;
    Ok(())
}

fn usage() -> ExitCode {
    complain("nex-agent is started by a node ('nex up' or 'nex node up'), not by hand. It knows --version and --probe.");
    ExitCode::from(2)
}

fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

//! `nex-agent` as process 1 of a virtual machine: it makes a system of the bare kernel, starts itself again as the agent,
//! learns from the node who that is, and takes the machine down when that one ends.
//!
//! ```text
//! kernel ─► mounts ─► agent loaded ─► ready ─► welcome ─► agent told ─► (attach) ─► ended ─► restart, which ends the monitor
//! ```
//!
//! Nothing listens here, and there is no way in: no login, no shell, no password. Whatever goes wrong is said on the console, and the
//! machine goes down: one that hangs helps nobody.

mod agent;
mod channel;
mod drive;
mod driver;
mod metadata;
mod mounts;
mod network;
mod state;
mod welcome;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use nex_process::guest;

/// Lives as the init; does not return where the kernel restarts the machine.
pub(crate) fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        note(&format!("the init of this guest panicked: {panic}"));
        restart();
    }));
    if let Err(error) = live() {
        note(&format!("this guest cannot go on: {error:#}"));
    }
    restart();
    // A kernel whose init ends panics, which is the next best end.
    ExitCode::FAILURE
}

fn live() -> anyhow::Result<()> {
    mounts::set_up()?;
    agent::spare_the_init()?;
    guest::take_ctrl_alt_del().context("cannot take Ctrl-Alt-Del")?;
    network::start()?;
    // One thread: a snapshot is taken of it while it waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let lived = runtime.block_on(driver::run());
    // What hangs in the kernel is not waited for.
    runtime.shutdown_background();
    lived
}

fn restart() {
    if let Err(error) = guest::restart() {
        note(&format!("this machine cannot be restarted: {error}"));
    }
}

/// A line for whoever reads the machine's console.
fn note(text: &str) {
    writeln!(std::io::stderr(), "nex-agent: {text}").ok();
}

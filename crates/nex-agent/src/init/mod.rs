//! `nex-agent` as process 1 of a virtual machine: it mounts file systems, starts itself again as the agent, applies the identity that the
//! node sends, and powers the machine off when the agent ends.
//!
//! ```text
//! kernel ─► mounts ─► agent loaded ─► ready ─► identity ─► agent runs ─► (attach) ─► ended ─► restart, which ends the monitor
//! ```
//!
//! Nothing listens here, and there is no login, shell or password. Errors are written to the console, and the machine powers off rather than
//! hang.

mod agent;
mod channel;
mod drive;
mod driver;
mod identity;
mod metadata;
mod mounts;
mod network;
mod state;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use nex_process::guest;

/// Runs as the init; does not return if the kernel restarts the machine.
pub(crate) fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        log_to_console(&format!("the init of this guest panicked: {panic}"));
        restart();
    }));
    if let Err(error) = run() {
        log_to_console(&format!("this guest cannot go on: {error:#}"));
    }
    restart();
    // The kernel panics when its init ends, which stops the machine too.
    ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    mounts::set_up()?;
    agent::set_oom_score()?;
    guest::take_ctrl_alt_del().context("cannot take Ctrl-Alt-Del")?;
    network::start()?;
    // One thread: a snapshot is taken of it while it waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let lived = runtime.block_on(driver::run());
    // Do not wait for threads that hang in the kernel.
    runtime.shutdown_background();
    lived
}

fn restart() {
    if let Err(error) = guest::restart() {
        log_to_console(&format!("this machine cannot be restarted: {error}"));
    }
}

/// Writes a line to the machine's console.
fn log_to_console(text: &str) {
    writeln!(std::io::stderr(), "nex-agent: {text}").ok();
}

//! `cargo xtask test`: prepares what the tests need, runs them and counts them.

use anyhow::{Result, bail};

use crate::skip::skip;
use crate::tally::Tally;
use crate::{dist, machines, shell, tools};

/// Tests of a node that do not depend on its sandboxes, so they run once.
pub(crate) const ONCE: [&str; 12] = [
    "policy::",
    "control::",
    "autostart::",
    "repeats::",
    "quotas::",
    "history::",
    "drain::",
    "durable::",
    "durable_crash::",
    "durable_hostile::",
    "durable_order::",
    "durable_schedule::",
];

/// Gets nats-server and what microVMs need, builds the binaries that end-to-end tests run, runs the tests; those of a node once more
/// with its agents in microVMs. Arguments go to `cargo test`, and then there is one run only.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let machines = machines::prepare(&dist, machines::TESTS);
    let command = |more: &[&str]| {
        let mut command = shell::cargo();
        command.args(["test", "--no-fail-fast"]).args(more).env("NEX_NATS_SERVER", &nats_server).env("NEX_DIST", &dist);
        match &machines {
            Ok(machines) => {
                command.env("NEX_TEST_RESOURCES", &machines.resources).env("NEX_MIRROR", &machines.mirror);
                command.env("NEX_KERNEL", machines.resources.join("vmlinux"))
            }
            Err(why) => command.env("NEX_TEST_NO_MACHINES", format!("{why:#}")),
        };
        command
    };
    // Cargo ignores -p beside --workspace.
    let chosen = args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let mut tally = Tally::default();
    let mut first = command(if chosen { &[] } else { &["--workspace"] });
    let mut ran = shell::run_watching(first.args(args), |line| tally.read(line));
    match &machines {
        Ok(_) if args.is_empty() => {
            println!("\nonce more, the node's tests in microVMs");
            let skipped = ONCE.iter().flat_map(|test| ["--skip", test]);
            let mut again = command(&["--workspace", "--test", "node", "--", "--test-threads=2"]);
            ran = ran.and(shell::run_watching(again.args(skipped).env("NEX_TEST_SANDBOX", "qemu"), |line| tally.read(line)));
        }
        Ok(_) => {}
        Err(why) => skip("everything in microVMs", format_args!("{why:#}"))?,
    }
    // Cargo prints a summary per test program only.
    println!("\n{tally}");
    ran?;
    if tally.passed() == 0 { bail!("no test was run; is the choice of tests right?") } else { Ok(()) }
}

//! `cargo xtask test`: everything the tests need, then the tests, then how many there were.

use anyhow::{Result, bail};

use crate::tally::Tally;
use crate::{dist, machines, shell, tools};

/// Tests of a node that have nothing to do with where its agents live: once is enough.
const ONCE: [&str; 3] = ["policy::", "control::", "autostart::"];

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
    // Cargo would quietly ignore a choice of packages beside --workspace.
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
        Err(why) => println!("SKIP everything in microVMs: {why:#}"),
    }
    // One line for all test programs together: cargo's own closing line is that of the last of them.
    println!("\n{tally}");
    ran?;
    if tally.passed() == 0 { bail!("no test was run; is the choice of tests right?") } else { Ok(()) }
}

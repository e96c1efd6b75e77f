//! `cargo xtask test`: everything the tests need, then the tests, then how many there were.

use anyhow::{Result, bail};

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
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    ran?;
    if tally.passed == 0 { bail!("no test was run; is the choice of tests right?") } else { Ok(()) }
}

/// How many tests there were, read from what `cargo test` prints.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            let before = counts.split(what).next()?;
            before.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse::<u64>().ok()
        };
        self.passed += count(" passed").unwrap_or(0);
        self.failed += count(" failed").unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_all_test_programs_are_added_up() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.60s");
        tally.read("test something ... ok");
        tally.read("test result: FAILED. 3 passed; 12 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.60s");
        assert_eq!((tally.passed, tally.failed), (20, 12));
    }
}

//! `cargo xtask test`: everything the tests need, then the tests, then how many there were.

use anyhow::{Result, bail};

use crate::{dist, machines, shell, tools};

/// Gets nats-server, builds the binaries that end-to-end tests run, runs the tests. Arguments go to `cargo test`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let nats_server = tools::nats_server()?;
    let dist = dist::dev()?;
    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast"]);
    let machines = machines::prepare(&dist, machines::TESTS);
    match &machines {
        Ok(machines) => {
            command.env("NEX_TEST_RESOURCES", &machines.resources).env("NEX_MIRROR", &machines.mirror);
            command.env("NEX_KERNEL", machines.resources.join("vmlinux"));
        }
        Err(why) => {
            println!("SKIP everything that needs microVMs: {why:#}");
            command.env("NEX_TEST_NO_MACHINES", format!("{why:#}"));
        }
    }
    // Cargo would quietly ignore a choice of packages beside --workspace.
    let chosen = args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    if !chosen {
        command.arg("--workspace");
    }
    command.args(args).env("NEX_NATS_SERVER", nats_server).env("NEX_DIST", dist);
    let mut tally = Tally::default();
    let ran = shell::run_watching(&mut command, |line| tally.read(line));
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

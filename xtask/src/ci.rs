//! `cargo xtask ci`: what the continuous integration checks, cheap before dear; every failure is reported, not the first.

use anyhow::{Result, bail};

use crate::shell;

/// A check by its name.
type Check = (&'static str, fn() -> Result<()>);

/// Checks everything.
pub(crate) fn run() -> Result<()> {
    let checks: [Check; 5] = [
        ("formatting", || shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
        ("clippy", || shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
        ("documentation", || {
            shell::run(shell::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
        }),
        ("tests", || crate::test::run(&[])),
        ("demo", crate::demo::run),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("\n=== {name}");
        if let Err(error) = check() {
            println!("error: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("\nall of it passed");
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

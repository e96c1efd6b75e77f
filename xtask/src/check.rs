//! `cargo xtask check`: checks the code without running it; reports every failure, not only the first.

use anyhow::{Result, bail};

use crate::shell;

/// A named check.
type Check = (&'static str, fn() -> Result<()>);

/// Runs all checks, cheap ones first.
pub(crate) fn run() -> Result<()> {
    let checks: [Check; 3] = [
        ("formatting", || shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
        ("clippy", || shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
        ("documentation", || {
            shell::run(shell::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("\n=== {name}");
        if let Err(error) = check() {
            println!("error: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

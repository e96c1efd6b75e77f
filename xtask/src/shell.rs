//! Runs cargo and other programs; finds directories.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What cargo tells of the package that it runs, this tool.
const OF_THIS_TOOL: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// The cargo that runs this tool. It is not told of this tool's package, which some build scripts watch: crates would be built again each time
/// that cargo is run by hand in between.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THIS_TOOL.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// The directory all builds go to, wherever cargo's configuration puts it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let output = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&output).context("cargo metadata says no JSON")?;
    let dir = metadata.get("target_directory").and_then(Value::as_str).context("cargo metadata names no target directory")?;
    Ok(dir.into())
}

/// A line that a program wrote, and where to.
enum Said {
    Output(String),
    Error(String),
}

/// Runs a program to its end, its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("\n$ {}", line(command));
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program to its end, its output and its errors on the terminal, and passes each line of both to a function.
pub(crate) fn run_watching(command: &mut Command, mut look: impl FnMut(&str)) -> Result<()> {
    println!("\n$ {}", line(command));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
    let output = BufReader::new(child.stdout.take().context("its output was not taken")?);
    let errors = BufReader::new(child.stderr.take().context("its errors were not taken")?);
    // Of each stream in its order; how the two mix is not known to anybody who reads them from pipes.
    let (said, lines) = mpsc::channel();
    let also = said.clone();
    let readers = [
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(said.send(Said::Output(line))))),
        thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|line| drop(also.send(Said::Error(line))))),
    ];
    for line in lines {
        match line {
            Said::Output(line) => {
                println!("{line}");
                look(&line);
            }
            Said::Error(line) => {
                writeln!(io::stderr(), "{line}")?;
                look(&line);
            }
        }
    }
    for reader in readers {
        drop(reader.join());
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program to its end and returns its output; its errors go to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}

//! `cargo xtask dist`: the two binaries side by side in `target/dist`, where `nex` looks for `nex-agent`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, output, target_dir};

/// The binaries of a release.
pub(crate) const SHIPPED: [&str; 2] = ["nex", "nex-agent"];

/// Builds the binaries of a release. Returns the directory.
pub(crate) fn release() -> Result<PathBuf> {
    let built = build(&["--release", "--package", "nex-cli", "--package", "nex-agent"])?;
    let dir = collect(&built, &SHIPPED)?;
    for name in SHIPPED {
        let file = dir.join(name);
        println!("{} {} KiB", file.display(), file.metadata()?.len() / 1024);
    }
    Ok(dir)
}

/// Builds the binaries of a release and the example service in the development profile, for tests and the demo. Returns the directory.
pub(crate) fn dev() -> Result<PathBuf> {
    // The whole workspace: with the same selection of packages, `cargo test` finds every dependency already built.
    let built = build(&["--workspace"])?;
    collect(&built, &["nex", "nex-agent", "echo-service"])
}

/// Builds binaries and returns the path of each.
fn build(selection: &[&str]) -> Result<Vec<PathBuf>> {
    println!("\n$ cargo build --bins {}", selection.join(" "));
    let messages = output(cargo().args(["build", "--bins", "--message-format=json-render-diagnostics"]).args(selection))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| Some(message.get("executable")?.as_str()?.into())).collect())
}

fn collect(built: &[PathBuf], names: &[&str]) -> Result<PathBuf> {
    let dir = target_dir()?.join("dist");
    std::fs::create_dir_all(&dir)?;
    for name in names {
        let file = built.iter().find(|file| file.file_name().is_some_and(|file| file == *name));
        let file = file.with_context(|| format!("cargo built no {name}"))?;
        crate::elf::check_static(file)?;
        place(file, &dir.join(name))?;
    }
    Ok(dir)
}

/// Replaces a program atomically, even while the old one is running.
pub(crate) fn place(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let copied = std::fs::copy(from, &new).and_then(|_bytes| std::fs::rename(&new, to));
    if let Err(error) = copied {
        bail!("cannot copy {} to {}: {error}", from.display(), to.display());
    }
    Ok(())
}

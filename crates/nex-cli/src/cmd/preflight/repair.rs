//! Installs what is missing: downloads what is pinned, builds the root image, and where we are root has the distribution's package manager
//! install the rest. Asks first, unless told not to.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nex_image::resources::distribution::Manager;
use nex_image::resources::{Found, Mirror, Vmm, What, install, manifest, verify};
use nex_image::rootfs::{RootfsSpec, build};
use nex_process::{ChildSpec, Deadline, Output as ChildOutput};

use super::args::PreflightArgs;
use super::microvm::Wanted;
use crate::cmd::rootfs::label;
use crate::output::Output;
use crate::progress::steps_bar;

/// Longest time a package manager may take.
const PACKAGES: Duration = Duration::from_secs(15 * 60);
/// Lines of a package manager that are shown when it fails.
const SHOWN: usize = 8;

/// Does what the arguments allow. What cannot be installed stays in the list, with the reason told here.
pub(super) async fn repair(wanted: &Wanted, args: &PreflightArgs, agent: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    let install = &args.install;
    let is_told = install.force || install.yes;
    let may_ask = !args.check && !output.is_json() && io::stdin().is_terminal() && wanted.is_asked;
    if args.check || !(is_told || may_ask) {
        return Ok(());
    }
    for what in missing(wanted, install.force && install.verify) {
        // What came with another package is there by now.
        if wanted.find().iter().any(|found| found.what == what && found.path.is_some()) && !damaged(wanted, what) {
            continue;
        }
        if !is_told && !ask(what)? {
            anyhow::bail!("user canceled preflight; next: run it again, or with --check to see the whole list");
        }
        if let Err(error) = bring(what, wanted, args, agent, output).await {
            output.note(format_args!("cannot install {what}: {error:#}"));
        }
    }
    Ok(())
}

/// What is to be installed, in order. Of two monitors, the one that fits this machine.
fn missing(wanted: &Wanted, is_verified: bool) -> Vec<What> {
    let found = wanted.find();
    let is_missing = |found: &&Found| found.required && found.path.is_none();
    let mut missing: Vec<What> = found.iter().filter(is_missing).map(|found| found.what).collect();
    if wanted.vmm == Vmm::Either {
        let other = if Path::new("/dev/kvm").exists() { What::Qemu } else { What::Firecracker };
        missing.retain(|what| *what != other);
    }
    if is_verified {
        missing.extend(found.iter().map(|found| found.what).filter(|what| damaged(wanted, *what)));
    }
    missing
}

/// Whether something we installed is not any more what it was.
fn damaged(wanted: &Wanted, what: What) -> bool {
    let path = wanted.find().into_iter().find(|found| found.what == what).and_then(|found| found.path);
    path.is_some_and(|path| matches!(verify(what, &path, &wanted.places), Ok(Some(false))))
}

fn ask(what: What) -> anyhow::Result<bool> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "⛔ Dependency Missing - {what}, do you want to install? [y/N] ").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim_end_matches('\n'), "y" | "Y"))
}

async fn bring(what: What, wanted: &Wanted, args: &PreflightArgs, agent: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    if what == What::RootImage {
        return image(wanted, args, agent, output);
    }
    let mirror = args.install.mirror.as_deref().map(Mirror::of);
    let downloaded = manifest::of(what).map(|_| {
        let mut report = steps_bar(output);
        tokio::task::block_in_place(|| install(what, &wanted.places, mirror.as_ref(), &mut report))
    });
    match downloaded {
        Some(Ok(path)) => {
            output.note(format_args!("installed {}", path.display()));
            Ok(())
        }
        Some(Err(error)) => match packaged(what, wanted, output).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.into()),
            Err(also) => Err(also.context(error)),
        },
        None => {
            let is_done = packaged(what, wanted, output).await?;
            anyhow::ensure!(is_done, "it is for the distribution's package manager, which only root may use");
            Ok(())
        }
    }
}

fn image(wanted: &Wanted, args: &PreflightArgs, agent: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    let agent = agent.context("there is no nex-agent to put into it; next: name one with --agent")?.to_owned();
    let base = args.install.registry.base(args.install.base.as_deref())?;
    let spec = RootfsSpec { base, agent, label: label(), mtime: None };
    let path = wanted.places.rootfs();
    let mut report = steps_bar(output);
    let built = tokio::task::block_in_place(|| build(&spec, &path, &mut report))?;
    output.note(format_args!("built {} (sha256:{})", path.display(), built.sha256));
    Ok(())
}

/// Has the package manager install it; whether there is one for it that we may use.
async fn packaged(what: What, wanted: &Wanted, output: &Output) -> anyhow::Result<bool> {
    let Some(manager) = Manager::of(&wanted.places.path).filter(|_| is_root()) else { return Ok(false) };
    let Some(package) = manager.package(what) else { return Ok(false) };
    let command = manager.command(&[package]);
    output.note(format_args!("running {}", command.join(" ")));
    if let Err(first) = spoken(&command, wanted).await {
        // A machine that never looked for packages knows of none.
        let refresh = manager.refresh();
        spoken(&refresh, wanted).await.with_context(|| format!("{first:#}"))?;
        spoken(&command, wanted).await?;
    }
    Ok(true)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs a command to its end; its last lines are told if it fails.
async fn spoken(command: &[String], wanted: &Wanted) -> anyhow::Result<()> {
    let (name, arguments) = command.split_first().context("no command")?;
    let dirs = wanted.places.path.iter().map(|dir| dir.join(name));
    let program = dirs.into_iter().find(|path| path.is_file()).with_context(|| format!("{name} is not in PATH"))?;
    let said = Arc::new(Mutex::new(VecDeque::new()));
    let lines = || {
        let said = Arc::clone(&said);
        ChildOutput::Lines(Arc::new(move |line: &str| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_back(line.to_owned());
            if said.len() > SHOWN {
                said.pop_front();
            }
        }))
    };
    let path = std::env::join_paths(&wanted.places.path)?;
    let child = ChildSpec::new(program).args(arguments.iter().cloned()).env("PATH", path).env("HOME", "/root");
    let child = child.env("DEBIAN_FRONTEND", "noninteractive").stdout(lines()).stderr(lines()).spawn()?;
    let exit = Deadline::after(PACKAGES).bound(child.exited()).await.with_context(|| format!("{name} does not end"))?;
    let said = Vec::from(said.lock().unwrap_or_else(PoisonError::into_inner).clone()).join("\n");
    anyhow::ensure!(exit.is_success(), "{} {exit}\n{said}", command.join(" "));
    Ok(())
}

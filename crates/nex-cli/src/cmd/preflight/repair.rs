//! Installs what is missing: downloads pinned packages, builds the root image and, as root, runs the distribution's package manager. Asks
//! first, unless told not to.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nex_image::base::Base;
use nex_image::resources::distribution::PackageManager;
use nex_image::resources::{Mirror, Resource, ResourceStatus, Vmm, install, manifest, verify};
use nex_image::rootfs::{RootfsSpec, build};
use nex_process::{ChildSpec, Deadline, Output as ChildOutput};

use super::args::PreflightArgs;
use super::microvm::Wanted;
use crate::cmd::rootfs::label;
use crate::output::Output;
use crate::progress::steps_bar;

/// Timeout of the package manager.
const PACKAGE_MANAGER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Lines of the package manager's output shown if it fails.
const MAX_SHOWN_LINES: usize = 8;

/// What a root image is built of.
pub(super) struct RootParts<'a> {
    /// The agent, if it was found.
    pub(super) agent: Option<&'a Path>,
    /// What else is in it.
    pub(super) base: Base,
}

/// Installs what the arguments allow. What cannot be installed is noted here and stays in the list.
pub(super) async fn repair(wanted: &Wanted, args: &PreflightArgs, parts: &RootParts<'_>, output: &Output) -> anyhow::Result<()> {
    let install = &args.install;
    let is_unattended = install.force || install.yes;
    let is_interactive = !args.check && !output.is_json() && io::stdin().is_terminal() && wanted.is_asked;
    if args.check || !(is_unattended || is_interactive) {
        return Ok(());
    }
    for resource in missing(wanted, install.force && install.verify) {
        // Another package may have installed it.
        if wanted.find().iter().any(|found| found.resource == resource && found.path.is_some()) && !is_damaged(wanted, resource) {
            continue;
        }
        if !is_unattended && !ask(resource)? {
            anyhow::bail!("user canceled preflight; next: run it again, or with --check to see the whole list");
        }
        if let Err(error) = install_resource(resource, wanted, args, parts, output).await {
            output.note(format_args!("cannot install {resource}: {error:#}"));
        }
    }
    Ok(())
}

/// Resources to install, in order; of two monitors the one that suits this machine.
fn missing(wanted: &Wanted, is_verified: bool) -> Vec<Resource> {
    let found = wanted.find();
    let is_missing = |found: &&ResourceStatus| found.required && found.path.is_none();
    let mut missing: Vec<Resource> = found.iter().filter(is_missing).map(|found| found.resource).collect();
    if wanted.vmm == Vmm::Either {
        let other = if Path::new("/dev/kvm").exists() { Resource::Qemu } else { Resource::Firecracker };
        missing.retain(|resource| *resource != other);
    }
    if is_verified {
        missing.extend(found.iter().map(|found| found.resource).filter(|resource| is_damaged(wanted, *resource)));
    }
    missing
}

/// Whether a resource installed by nex was modified.
fn is_damaged(wanted: &Wanted, resource: Resource) -> bool {
    let path = wanted.find().into_iter().find(|found| found.resource == resource).and_then(|found| found.path);
    path.is_some_and(|path| matches!(verify(resource, &path, &wanted.paths), Ok(Some(false))))
}

fn ask(resource: Resource) -> anyhow::Result<bool> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "⛔ Dependency Missing - {resource}, do you want to install? [y/N] ").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim_end_matches('\n'), "y" | "Y"))
}

async fn install_resource(
    resource: Resource,
    wanted: &Wanted,
    args: &PreflightArgs,
    parts: &RootParts<'_>,
    output: &Output,
) -> anyhow::Result<()> {
    if resource == Resource::RootImage {
        return build_image(wanted, parts, output);
    }
    let mirror = args.install.mirror.as_deref().map(Mirror::of);
    let downloaded = manifest::of(resource).map(|_| {
        let mut report = steps_bar(output);
        tokio::task::block_in_place(|| install(resource, &wanted.paths, mirror.as_ref(), &mut report))
    });
    match downloaded {
        Some(Ok(path)) => {
            output.note(format_args!("installed {}", path.display()));
            Ok(())
        }
        Some(Err(error)) => match install_package(resource, wanted, output).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.into()),
            Err(also) => Err(also.context(error)),
        },
        None => {
            let is_done = install_package(resource, wanted, output).await?;
            anyhow::ensure!(is_done, "it is for the distribution's package manager, which only root may use");
            Ok(())
        }
    }
}

fn build_image(wanted: &Wanted, parts: &RootParts<'_>, output: &Output) -> anyhow::Result<()> {
    let agent = parts.agent.context("there is no nex-agent to put into it; next: name one with --agent")?.to_owned();
    let spec = RootfsSpec { base: parts.base.clone(), agent, label: label(), mtime: None };
    let path = wanted.paths.rootfs();
    let mut report = steps_bar(output);
    let built = tokio::task::block_in_place(|| build(&spec, &path, &mut report))?;
    output.note(format_args!("built {} (sha256:{})", path.display(), built.sha256));
    Ok(())
}

/// Installs a resource with the package manager; returns false if there is no package or no permission.
async fn install_package(resource: Resource, wanted: &Wanted, output: &Output) -> anyhow::Result<bool> {
    let Some(manager) = PackageManager::of(&wanted.paths.path).filter(|_| is_root()) else { return Ok(false) };
    let Some(package) = manager.package(resource) else { return Ok(false) };
    let command = manager.command(&[package]);
    output.note(format_args!("running {}", command.join(" ")));
    if let Err(first) = run_command(&command, wanted).await {
        // The package lists may be missing: update them and try again.
        let refresh = manager.refresh();
        run_command(&refresh, wanted).await.with_context(|| format!("{first:#}"))?;
        run_command(&command, wanted).await?;
    }
    Ok(true)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs a command; its last lines are shown if it fails.
async fn run_command(command: &[String], wanted: &Wanted) -> anyhow::Result<()> {
    let (name, arguments) = command.split_first().context("no command")?;
    let dirs = wanted.paths.path.iter().map(|dir| dir.join(name));
    let program = dirs.into_iter().find(|path| path.is_file()).with_context(|| format!("{name} is not in PATH"))?;
    let output_lines = Arc::new(Mutex::new(VecDeque::new()));
    let lines = || {
        let output_lines = Arc::clone(&output_lines);
        ChildOutput::Lines(Arc::new(move |line: &str| {
            let mut output_lines = output_lines.lock().unwrap_or_else(PoisonError::into_inner);
            output_lines.push_back(line.to_owned());
            if output_lines.len() > MAX_SHOWN_LINES {
                output_lines.pop_front();
            }
        }))
    };
    let path = std::env::join_paths(&wanted.paths.path)?;
    let child = ChildSpec::new(program).args(arguments.iter().cloned()).env("PATH", path).env("HOME", "/root");
    let child = child.env("DEBIAN_FRONTEND", "noninteractive").stdout(lines()).stderr(lines()).spawn()?;
    let exit =
        Deadline::after(PACKAGE_MANAGER_TIMEOUT).bound(child.exited()).await.with_context(|| format!("{name} does not end"))?;
    let output_lines = Vec::from(output_lines.lock().unwrap_or_else(PoisonError::into_inner).clone()).join("\n");
    anyhow::ensure!(exit.is_success(), "{} {exit}\n{output_lines}", command.join(" "));
    Ok(())
}

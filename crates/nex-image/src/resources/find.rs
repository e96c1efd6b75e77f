//! Finds resources. Reads headers of files; runs and changes nothing.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::install;
use super::paths::ResourcePaths;
use super::resource::{Resource, Vmm};
use crate::kernel;

/// The plug-ins of the default CNI network.
const CNI_PLUGINS: [&str; 2] = ["ptp", "host-local"];

/// Whether a resource is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceStatus {
    /// The resource.
    pub resource: Resource,
    /// Whether microVMs need it.
    pub required: bool,
    /// Its path, if it is usable.
    pub path: Option<PathBuf>,
    /// Why it is not usable; empty if it is.
    pub why: String,
    /// How to get it; empty if it is usable.
    pub next: String,
}

/// Why a resource is not usable.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    /// There is no such program.
    #[error("no {name} in {dirs}{}", if *.in_path { ", nor in PATH" } else { "" })]
    NoProgram {
        /// Its name.
        name: &'static str,
        /// Where it was looked for.
        dirs: String,
        /// Whether it was looked for in the `$PATH` too.
        in_path: bool,
    },
    /// A kernel in another format.
    #[error("{} is no kernel that can be booted (an uncompressed ELF file for x86_64)", .0.display())]
    NotBootable(PathBuf),
    /// An image that is not one.
    #[error("{} is no EROFS image, or was cut off", .0.display())]
    NotAnImage(PathBuf),
    /// An image of another build.
    #[error("{} holds another nex-agent than the one here", .0.display())]
    OtherAgent(PathBuf),
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Finds everything that microVMs need.
#[must_use]
pub fn find(vmm: Vmm, paths: &ResourcePaths) -> Vec<ResourceStatus> {
    let mut found: Vec<ResourceStatus> = monitors(vmm, paths);
    found.push(piece(Resource::Kernel, true, kernel_at(paths.kernel())));
    found.push(piece(Resource::RootImage, true, image_at(paths.rootfs(), paths.agent)));
    found.push(piece(Resource::Nft, true, in_programs(Resource::Nft, paths)));
    if let Some(dirs) = &paths.cni_bin_path {
        found.extend(CNI_PLUGINS.map(Resource::Cni).map(|resource| piece(resource, true, program(resource, dirs))));
    }
    found
}

/// If there is a choice, the monitor found makes the other one optional. The jailer matters only with Firecracker.
fn monitors(vmm: Vmm, paths: &ResourcePaths) -> Vec<ResourceStatus> {
    let look = |resource, required| piece(resource, required, in_programs(resource, paths));
    let first = (vmm != Vmm::Qemu).then(|| look(Resource::Firecracker, true));
    let second = (vmm != Vmm::Firecracker).then(|| look(Resource::Qemu, true));
    let is_there = |found: &Option<ResourceStatus>| found.as_ref().is_some_and(|found| found.path.is_some());
    let (has_first, has_second) = (is_there(&first), is_there(&second));
    let jailer = (has_first || vmm == Vmm::Firecracker).then(|| look(Resource::Jailer, false));
    let first = first.map(|found| ResourceStatus { required: !has_second, ..found });
    let second = second.map(|found| ResourceStatus { required: !has_first, ..found });
    [first, jailer, second].into_iter().flatten().collect()
}

/// Finds a program; also searches the `sbin` directories, which are not in every `$PATH`.
fn in_programs(resource: Resource, paths: &ResourcePaths) -> Result<PathBuf, Unusable> {
    let named: Vec<PathBuf> = paths.bin_path.iter().cloned().chain([paths.layout.bin()]).collect();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let all: Vec<PathBuf> = paths.path.iter().cloned().chain(sbin).collect();
    let found = look_in(resource, &named).or_else(|| look_in(resource, &all));
    found.ok_or_else(|| not_found(resource, &named, true))
}

fn piece(resource: Resource, required: bool, looked: Result<PathBuf, Unusable>) -> ResourceStatus {
    match looked {
        Ok(path) => ResourceStatus { resource, required, path: Some(path), why: String::new(), next: String::new() },
        Err(why) => ResourceStatus { resource, required, path: None, why: why.to_string(), next: install::advice(resource) },
    }
}

/// Finds a program in these directories only.
fn program(resource: Resource, dirs: &[PathBuf]) -> Result<PathBuf, Unusable> {
    look_in(resource, dirs).ok_or_else(|| not_found(resource, dirs, false))
}

fn not_found(resource: Resource, dirs: &[PathBuf], in_path: bool) -> Unusable {
    let dirs = dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
    Unusable::NoProgram { name: resource.program().unwrap_or_default(), dirs, in_path }
}

/// Finds an executable in directories.
fn look_in(resource: Resource, dirs: &[PathBuf]) -> Option<PathBuf> {
    let name = resource.program().unwrap_or_default();
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.join(name)).find(is_program)
}

fn kernel_at(path: PathBuf) -> Result<PathBuf, Unusable> {
    match kernel::is_bootable(&path) {
        Ok(true) => Ok(path),
        Ok(false) => Err(Unusable::NotBootable(path)),
        Err(source) => Err(Unusable::Io { path, source }),
    }
}

fn image_at(path: PathBuf, agent: Option<[u8; 16]>) -> Result<PathBuf, Unusable> {
    match nex_erofs::identify(&path) {
        Ok(Some(image)) if agent.is_none_or(|agent| agent == image.uuid) => Ok(path),
        Ok(Some(_)) => Err(Unusable::OtherAgent(path)),
        Ok(None) => Err(Unusable::NotAnImage(path)),
        Err(source) => Err(Unusable::Io { path, source }),
    }
}

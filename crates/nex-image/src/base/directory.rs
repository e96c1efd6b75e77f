//! Loads a directory with its owners, modes, times, devices and hard links. Symbolic links are not followed; contents are copied later.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nex_erofs::{Kind, Meta, Source};

use super::error::BaseError;
use crate::file::FileError;
use crate::layers::{ImageBuilder, LayerError};

/// Adds everything below `dir`.
pub(super) fn load(dir: &Path, builder: &mut ImageBuilder) -> Result<(), BaseError> {
    let failed = |source: LayerError| BaseError::Layer { from: dir.display().to_string(), source };
    let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut next: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(relative) = next.pop() {
        let path = dir.join(&relative);
        let found = if relative.as_os_str().is_empty() { path.metadata() } else { path.symlink_metadata() };
        let found = found.map_err(FileError::reading(&path))?;
        let name = relative.as_os_str().as_bytes();
        builder.budget.charge(if found.is_file() { found.len() } else { 0 }).map_err(failed)?;
        let inode = (found.dev(), found.ino());
        if found.nlink() > 1
            && !found.is_dir()
            && let Some(first) = names.get(&inode)
        {
            builder.tree.link(name, first).map_err(|error| failed(error.into()))?;
            continue;
        }
        let kind = kind(&found, &path)?;
        if found.is_dir() {
            for entry in path.read_dir().map_err(FileError::reading(&path))? {
                next.push(relative.join(entry.map_err(FileError::reading(&path))?.file_name()));
            }
        } else if found.nlink() > 1 {
            names.insert(inode, name.to_vec());
        }
        let mtime = builder.time(u64::try_from(found.mtime()).unwrap_or_default());
        let mode = u16::try_from(found.mode() & 0o7777).unwrap_or_default();
        let meta = Meta { mode, uid: found.uid(), gid: found.gid(), mtime };
        builder.tree.put(name, meta, kind).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

fn kind(found: &Metadata, path: &Path) -> Result<Kind, FileError> {
    let of = found.file_type();
    // As the kernel packs device numbers.
    let device = found.rdev();
    let part = |value: u64| u32::try_from(value).unwrap_or_default();
    let (major, minor) = (part(device >> 8 & 0xfff), part(device & 0xff | device >> 12 & 0xf_ff00));
    Ok(if of.is_dir() {
        Kind::Directory
    } else if of.is_symlink() {
        let target = std::fs::read_link(path).map_err(FileError::reading(path))?;
        Kind::Symlink(target.as_os_str().as_bytes().to_vec())
    } else if of.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if of.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if of.is_fifo() {
        Kind::Fifo
    } else if of.is_socket() {
        Kind::Socket
    } else {
        Kind::File(Source::Path(path.to_owned()))
    })
}

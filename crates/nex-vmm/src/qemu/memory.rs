//! The guest's memory as a memfd, saved to disk and loaded again.
//!
//! A machine that boots has its memory in an anonymous file: its snapshot is a copy of that, without a disk in the way of the guest's writes.
//! A restored one maps a sealed copy and gets pages of its own where it writes. Sealed, because QEMU insists on opening
//! the file for writing, and no guest may reach the memory of the next one.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};
use tokio::sync::OnceCell;

use crate::error::VmmError;

const CHUNK: usize = 1 << 20;

/// The sealed memory of a snapshot: made at the first restore, shared by all, gone with the last owner.
pub(crate) type SealedMemory = Arc<OnceCell<OwnedFd>>;

/// An empty file in memory.
pub(super) fn fresh(mib: u32) -> Result<File, VmmError> {
    create(u64::from(mib) << 20).map_err(VmmError::file("make memory of the size of", Path::new("guest")))
}

fn create(size: u64) -> io::Result<File> {
    let file = File::from(memfd_create(c"nex-guest", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_len(size)?;
    Ok(file)
}

/// Writes a guest's memory into a new file on disk.
pub(super) async fn save(memory: File, path: &Path) -> Result<(), VmmError> {
    let target = File::create_new(path).map_err(VmmError::file("make", path))?;
    let saved = blocking(move || copy(&memory, &target)).await;
    saved.map(drop).map_err(VmmError::file("write", path))
}

/// A descriptor of the sealed copy of a snapshot's memory.
pub(super) async fn load(sealed: &SealedMemory, path: &Path, mib: u32) -> Result<OwnedFd, VmmError> {
    let size = u64::from(mib) << 20;
    let made = sealed.get_or_try_init(|| async {
        let source = File::open(path)?;
        if source.metadata()?.len() != size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is not {mib} MiB large")));
        }
        blocking(move || seal(&source, size)).await
    });
    let made = made.await.and_then(OwnedFd::try_clone);
    made.map_err(VmmError::file("load the memory of the snapshot", path))
}

fn seal(source: &File, size: u64) -> io::Result<OwnedFd> {
    let memory = create(size)?;
    copy(source, &memory)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

/// Copies what is in a file and leaves its holes holes.
fn copy(from: &File, to: &File) -> io::Result<u64> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; CHUNK];
    let (mut copied, mut at) = (0, 0);
    while at < size {
        at = match lseek(from, i64::try_from(at).map_err(io::Error::other)?, Whence::SeekData) {
            Ok(start) => u64::try_from(start).map_err(io::Error::other)?,
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = lseek(from, i64::try_from(at).map_err(io::Error::other)?, Whence::SeekHole)?;
        let end = u64::try_from(end).map_err(io::Error::other)?;
        while at < end {
            let wanted = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = buffer.get_mut(..wanted).unwrap_or_default();
            from.read_exact_at(chunk, at)?;
            to.write_all_at(chunk, at)?;
            at += u64::try_from(wanted).map_err(io::Error::other)?;
            copied += u64::try_from(wanted).map_err(io::Error::other)?;
        }
    }
    tracing::debug!(fd = from.as_raw_fd(), bytes = copied, of = size, "memory copied");
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_comes_back_from_disk_sparse_and_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let memory = fresh(64).unwrap();
        memory.write_all_at(b"something", 40 << 20).unwrap();
        save(memory, &path).await.unwrap();
        let sealed = SealedMemory::default();
        let back = File::from(load(&sealed, &path, 64).await.unwrap());
        let mut bytes = [0; 9];
        back.read_exact_at(&mut bytes, 40 << 20).unwrap();
        assert_eq!(&bytes, b"something");
        assert!(std::os::unix::fs::MetadataExt::blocks(&back.metadata().unwrap()) * 512 < 1 << 20, "holes stay holes");
        assert!(back.write_all_at(b"else", 0).is_err(), "nobody writes to it");
        std::fs::remove_file(&path).unwrap();
        load(&sealed, &path, 64).await.unwrap();
        assert!(load(&SealedMemory::default(), &path, 64).await.is_err());
    }
}

//! The files of one machine: links to its images under fixed names, and its sockets.
//!
//! Images are hard links, so that a monitor without the right to walk to the original (another user, a chroot) can open them.
//! Sockets are opened through a descriptor of the directory, because a socket's path is limited to 108 bytes.
//!
//! *Trust:* Firecracker may write to its directory at any moment. So nothing in it is opened through a symbolic link, overwritten, or
//! chmodded by name: files are checked and used through one descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{getegid, geteuid};
use tokio::net::UnixStream;

use crate::error::VmmError;
use crate::spec::MachineSpec;

/// Name of the kernel.
pub(crate) const KERNEL: &str = "kernel";
/// Name of the root image.
pub(crate) const ROOT: &str = "root.img";

/// Name of a drive's image.
pub(crate) fn drive(slot: usize) -> String {
    format!("drive{slot}.img")
}

/// What to do where a hard link is impossible: on another file system, or for another user's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// A symbolic link will do.
    Symlink,
    /// The monitor lives in a chroot and needs the bytes.
    Copy,
}

/// The directory that a monitor runs in.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    fd: OwnedFd,
    fallback: Fallback,
}

impl Files {
    /// Opens the directory.
    pub(crate) fn open(dir: &Path, fallback: Fallback) -> Result<Self, VmmError> {
        let fd = File::open(dir).map_err(VmmError::file("open", dir))?.into();
        Ok(Self { dir: dir.to_owned(), fd, fallback })
    }

    /// Where a file of the machine is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Links the images of a machine, with the kernel if it boots.
    pub(crate) async fn place_images(&self, spec: &MachineSpec, kernel: bool) -> Result<(), VmmError> {
        if kernel {
            self.place(&spec.kernel, KERNEL).await?;
        }
        self.place(&spec.root, ROOT).await?;
        for (slot, image) in spec.drives.iter().enumerate() {
            self.place(image, &drive(slot)).await?;
        }
        Ok(())
    }

    /// Puts a file under that name, replacing an older one atomically; a process that has the older one open keeps it.
    pub(crate) async fn place(&self, source: &Path, name: &str) -> Result<(), VmmError> {
        // A hard link to a symbolic link would be a symbolic link.
        let source = source.canonicalize().map_err(VmmError::file("find", source))?;
        let (new, target) = (self.path(&format!("{name}.new")), self.path(name));
        remove(&new)?;
        match std::fs::hard_link(&source, &new) {
            Ok(()) => {}
            Err(_) if self.fallback == Fallback::Symlink => {
                std::os::unix::fs::symlink(&source, &new).map_err(VmmError::file("link", &source))?;
            }
            Err(_) => copy(&source, &new).await.map_err(VmmError::file("copy", &source))?,
        }
        std::fs::rename(&new, &target).map_err(VmmError::file("replace", &target))?;
        // Renaming a file onto another link to itself does nothing and keeps both names.
        remove(&new)
    }

    /// Makes the monitor's user the owner of the directory, so that it can create sockets there.
    pub(crate) fn chown_to(&self, user: Option<u32>) -> Result<(), VmmError> {
        let Some(user) = user else { return Ok(()) };
        chown(&self.dir, Some(user), Some(user)).map_err(VmmError::file("give away", &self.dir))
    }

    /// Lets the monitor's user open files in the directory.
    pub(crate) fn grant_access(&self, user: Option<u32>) -> Result<(), VmmError> {
        let Some(user) = user else { return Ok(()) };
        chown(&self.dir, None, Some(user))
            .and_then(|()| std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o750)))
            .map_err(VmmError::file("open to the monitor", &self.dir))
    }

    /// Listens on a socket of that name, to which that user may connect.
    pub(crate) fn listen(&self, name: &str, user: Option<u32>) -> Result<UnixListener, VmmError> {
        let listener = UnixListener::bind(self.socket(name)).map_err(VmmError::file("listen on", &self.path(name)))?;
        if let Some(user) = user {
            let path = self.path(name);
            lchown(&path, Some(user), Some(user)).map_err(VmmError::file("give away", &path))?;
        }
        Ok(listener)
    }

    /// The same, in place of the socket that another process has left.
    pub(crate) fn listen_again(&self, name: &str, user: Option<u32>) -> Result<UnixListener, VmmError> {
        remove(&self.path(name))?;
        self.listen(name, user)
    }

    /// A short path to a socket in the directory.
    fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// Connects to a socket in the directory itself, not to one that a link leads to.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let found = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(self.socket(name))?;
        if !found.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no socket"));
        }
        UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await
    }

    /// Moves a file that the monitor wrote to a directory that it cannot write to.
    pub(crate) async fn take(&self, name: &str, target: &Path) -> Result<(), VmmError> {
        let source = self.path(name);
        let open = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&source);
        let file = open.and_then(|file| file.metadata()?.is_file().then_some(file).ok_or(io::ErrorKind::InvalidData.into()));
        let file = file.map_err(VmmError::file("read", &source))?;
        if std::fs::rename(&source, target).is_err() {
            return copy_file(file, target).await.map_err(VmmError::file("write", target));
        }
        let own = || {
            if !is_same(&file, target)? {
                remove_other(target)?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the monitor put another file in its place"));
            }
            fchown(&file, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
            file.set_permissions(std::fs::Permissions::from_mode(0o444))
        };
        own().map_err(VmmError::file("take over", target))
    }
}

/// Whether a path still is the file that was opened.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, found) = (file.metadata()?, std::fs::symlink_metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (found.dev(), found.ino()))
}

fn remove_other(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Copies a file to a new name, readable by all.
async fn copy(source: &Path, new: &Path) -> io::Result<()> {
    copy_file(File::open(source)?, new).await
}

async fn copy_file(mut source: File, new: &Path) -> io::Result<()> {
    let mut target = File::options().write(true).create_new(true).mode(0o400).open(new)?;
    let copied = tokio::task::spawn_blocking(move || {
        io::copy(&mut source, &mut target)?;
        target.set_permissions(std::fs::Permissions::from_mode(0o444))
    });
    copied.await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

fn remove(path: &Path) -> Result<(), VmmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VmmError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_is_replaced_in_one_step_even_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("machine");
        std::fs::create_dir(&machine).unwrap();
        for name in ["one", "two"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let files = Files::open(&machine, Fallback::Symlink).unwrap();
        for name in ["one", "one", "two"] {
            files.place(&dir.path().join(name), "drive0.img").await.unwrap();
            assert_eq!(std::fs::read_to_string(files.path("drive0.img")).unwrap(), name);
        }
        assert_eq!(std::fs::read_dir(&machine).unwrap().count(), 1, "nothing else is left");
        let error = files.place(&dir.path().join("three"), "drive0.img").await.unwrap_err();
        assert!(error.to_string().contains("three"), "{error}");
    }

    #[tokio::test]
    async fn a_link_that_a_monitor_made_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("state")).unwrap();
        let files = Files::open(dir.path(), Fallback::Symlink).unwrap();
        assert!(files.take("state", &dir.path().join("taken")).await.is_err());
        assert!(copy(&dir.path().join("secret"), &dir.path().join("state")).await.is_err(), "nothing is written through a link");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "secret");
    }

    #[tokio::test]
    async fn a_taken_file_keeps_its_bytes_and_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path(), Fallback::Symlink).unwrap();
        std::fs::write(files.path("state"), "state").unwrap();
        let taken = dir.path().join("taken");
        files.take("state", &taken).await.unwrap();
        assert_eq!(std::fs::read_to_string(&taken).unwrap(), "state");
        assert_eq!(std::fs::metadata(&taken).unwrap().permissions().mode() & 0o777, 0o444);
        assert!(!files.path("state").exists());
        let opened = File::open(&taken).unwrap();
        assert!(is_same(&opened, &taken).unwrap() && !is_same(&opened, dir.path()).unwrap());
    }

    #[tokio::test]
    async fn a_link_in_place_of_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("machine");
        std::fs::create_dir(&machine).unwrap();
        let _others = UnixListener::bind(dir.path().join("others.sock")).unwrap();
        std::os::unix::fs::symlink("../others.sock", machine.join("api.sock")).unwrap();
        std::fs::write(machine.join("plain"), "").unwrap();
        let files = Files::open(&machine, Fallback::Symlink).unwrap();
        for name in ["api.sock", "plain", "nothing"] {
            assert!(files.connect(name).await.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_reached_in_a_directory_with_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let files = Files::open(&long, Fallback::Copy).unwrap();
        let _listener = files.listen("nex.sock", None).unwrap();
        files.connect("nex.sock").await.unwrap();
    }
}

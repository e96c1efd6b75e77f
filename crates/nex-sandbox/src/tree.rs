//! Removes a directory tree made by an untrusted process: bounded stack and descriptors at any depth, no link followed, permissions
//! overridden. Every name is resolved through a descriptor of its directory, so moving or replacing a directory meanwhile leads
//! nowhere else.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmod, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Names read at once.
const MAX_NAMES: usize = 4096;

/// Removes the tree. One that is gone already is fine.
///
/// Directories inside are not descended into but lifted to the top first, so depth never matters.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    let directory = match open(CWD, top) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut lifted = 0_u64;
    loop {
        let mut any = false;
        for name in names(&directory)? {
            any = true;
            if is_dir(&directory, &name)? {
                flatten(&directory, &name, &mut lifted)?;
            } else {
                unlinkat(&directory, &name, AtFlags::empty())?;
            }
        }
        if !any {
            return Ok(unlinkat(CWD, top, AtFlags::REMOVEDIR)?);
        }
    }
}

/// Empties one directory of the top: files go, directories move up beside it.
fn flatten(top: &OwnedFd, name: &CStr, lifted: &mut u64) -> io::Result<()> {
    if unlinkat(top, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    let directory = open(top, name)?;
    loop {
        empty(&directory, top, lifted)?;
        match unlinkat(top, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {}
            result => return Ok(result?),
        }
    }
}

fn empty(directory: &OwnedFd, top: &OwnedFd, lifted: &mut u64) -> io::Result<()> {
    for entry in names(directory)? {
        if !is_dir(directory, &entry)? {
            unlinkat(directory, &entry, AtFlags::empty())?;
            continue;
        }
        // Moving a directory needs write permission on it, because its ".." changes.
        drop(open(directory, &entry)?);
        // A name that already exists makes the rename fail or replaces an empty directory; then try the next number.
        while renameat(directory, &entry, top, format!("lifted-{lifted}")).is_err() {
            *lifted += 1;
            if matches!(statat(directory, &entry, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
                break;
            }
        }
        *lifted += 1;
    }
    Ok(())
}

/// Opens a directory, whatever its permissions were, for its owner.
fn open(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let found = openat(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // By the descriptor: the name may lead elsewhere by now.
    chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
    openat(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
        // The next round reads the rest.
        if names.len() == MAX_NAMES {
            break;
        }
    }
    Ok(names)
}

fn is_dir(directory: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_hostile_tree_goes_and_what_its_links_point_to_stays() {
        let home = tempfile::tempdir().unwrap();
        let (top, outside) = (home.path().join("top"), home.path().join("outside"));
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join("lifted-0/x/y")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "1").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        fs::write(top.join("a/b/file"), "1").unwrap();
        for dir in ["a/b/c", "a/b", "lifted-0/x"] {
            fs::set_permissions(top.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("precious").exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("top");
        fs::create_dir(&top).unwrap();
        // Built from the inside out, since a path of this depth is too long to be named.
        let spare = home.path().join("spare");
        fs::create_dir(top.join("d")).unwrap();
        for _ in 0..1100 {
            fs::create_dir(&spare).unwrap();
            fs::rename(top.join("d"), spare.join("d")).unwrap();
            fs::rename(&spare, top.join("d")).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }
}

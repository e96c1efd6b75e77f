//! Removes a directory tree that a stranger may have shaped: bounded stack and descriptors however deep it is, no link followed,
//! no permission in the way.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes the tree. One that is gone already is fine.
///
/// Directories inside are not descended into but lifted to the top first, so depth never matters.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut lifted = 0_u64;
    loop {
        let entries = match fs::read_dir(top) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut any = false;
        for entry in entries {
            any = true;
            let path = entry?.path();
            if is_dir(&path)? { flatten(&path, top, &mut lifted)? } else { fs::remove_file(&path)? }
        }
        if !any {
            return fs::remove_dir(top);
        }
    }
}

/// Empties one directory of the top: files go, directories move up beside it.
fn flatten(dir: &Path, top: &Path, lifted: &mut u64) -> io::Result<()> {
    if fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    open_up(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !is_dir(&path)? {
            fs::remove_file(&path)?;
            continue;
        }
        open_up(&path)?;
        // A name that the stranger took makes rename fail or replace an empty directory; then the next number serves.
        while fs::rename(&path, top.join(format!("lifted-{lifted}"))).is_err() {
            *lifted += 1;
            if fs::symlink_metadata(&path).is_err() {
                break;
            }
        }
        *lifted += 1;
    }
    fs::remove_dir(dir)
}

fn is_dir(path: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.is_dir())
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
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

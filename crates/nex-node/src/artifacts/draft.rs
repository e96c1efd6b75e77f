//! Files on their way into the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nex_process::crash_point;

/// How the name of a file begins that is on its way into the cache.
pub(super) const DRAFT: &str = "draft-";

/// A file on its way into the cache, removed unless it is kept.
#[derive(Debug)]
pub struct Draft {
    pub(super) path: PathBuf,
    pub(super) file: fs::File,
    kept: bool,
}

impl Draft {
    /// The file, for whoever fills it.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn file(&self) -> io::Result<fs::File> {
        self.file.try_clone()
    }

    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
        let file = fs::OpenOptions::new().create_new(true).write(true).open(&path)?;
        Ok(Self { path, file, kept: false })
    }

    pub(super) fn keep(&mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        set_readable(&self.path)?;
        crash_point("artifact: before it is named");
        fs::rename(&self.path, path)?;
        crash_point("artifact: it is named");
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "a partial download stays behind");
        }
    }
}

fn set_readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o555))
}

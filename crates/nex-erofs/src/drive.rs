//! The drive that brings a workload's artifact into a microVM: an image with the one file `artifact`.

use std::fs::File;
use std::path::Path;

use crate::error::WriteError;
use crate::format::Options;
use crate::image::Written;
use crate::source::Source;
use crate::tree::{Kind, Meta, Tree, TreeError};

/// Name of the file in the drive.
pub const ARTIFACT: &str = "artifact";

/// Why a drive cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Its file cannot be created.
    #[error("cannot create the drive {path}; next: check that its directory exists and that nothing has that name")]
    Create {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The image cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tree is invalid; it is the same for every drive, so this is a bug.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Creates the drive `out`, a new file, with the content of `file` as `/artifact`, owned by root, mode 0555. The kernel copies the
/// content to a block boundary, so file systems with reflinks share the blocks. Blocks the thread.
///
/// # Errors
/// `file` cannot be read, or `out` exists or cannot be written. No partial drive is left behind.
pub fn drive(file: &Path, out: &Path) -> Result<Written, DriveError> {
    let mut tree = Tree::new(Meta::root(0o555));
    tree.put(ARTIFACT, Meta::root(0o555), Kind::File(Source::Path(file.to_owned())))?;
    let failed = |source| DriveError::Create { path: out.to_owned(), source };
    let mut drive = File::create_new(out).map_err(failed)?;
    tree.write(&mut drive, &Options::default()).map_err(|error| {
        // Keep the write error; the unlink is best effort.
        drop(std::fs::remove_file(out));
        error.into()
    })
}

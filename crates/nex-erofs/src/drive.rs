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

/// Why a drive cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The file for it.
    #[error("cannot make the drive {path}; next: see that its directory is there and that nothing has that name")]
    Create {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its tree, which is always the same.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Makes the drive `into`, a new file of a multiple of 4096 bytes, with the content of `file` as `/artifact`: root's, mode 0555. The
/// content is copied by the kernel, to a block boundary, so a file system that can share blocks does. Blocks the thread for as long.
///
/// # Errors
/// `file` cannot be read, or `into` exists or cannot be written; then nothing is left at `into` that was not there.
pub fn drive(file: &Path, into: &Path) -> Result<Written, DriveError> {
    let mut tree = Tree::new(Meta::root(0o555));
    tree.put(ARTIFACT, Meta::root(0o555), Kind::File(Source::Path(file.to_owned())))?;
    let failed = |source| DriveError::Create { path: into.to_owned(), source };
    let mut out = File::create_new(into).map_err(failed)?;
    tree.write(&mut out, &Options::default()).map_err(|error| {
        // The first failure is what is told; a half-written drive nobody can take for one is the least that is left.
        drop(std::fs::remove_file(into));
        error.into()
    })
}

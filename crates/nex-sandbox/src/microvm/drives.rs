//! Artifacts as drives: a read-only image with one file, made on first use and shared by all machines.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nex_erofs::drive::DriveError;

/// Size of the placeholder drive before an artifact is attached, bytes.
const EMPTY: u64 = 4096;
const EXTENSION: &str = "erofs";

/// The directory of images.
#[derive(Debug, Clone)]
pub(super) struct Drives {
    dir: PathBuf,
}

/// An artifact could not be made a drive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] DriveError),
    /// The directory refuses.
    #[error("could not keep it among the drives")]
    Keep(#[from] io::Error),
}

impl Drives {
    /// Makes sure that the empty drive is there.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let drives = Self { dir };
        fs::File::create(drives.empty())?.set_len(EMPTY)?;
        Ok(drives)
    }

    /// The placeholder in a machine's drive until an artifact is attached.
    pub(super) fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    /// The drive of a file that never changes. Blocks while it is made.
    pub(super) fn of(&self, file: &Path) -> Result<PathBuf, ImageError> {
        let name = file.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let image = self.dir.join(name).with_extension(EXTENSION);
        if image.is_file() {
            return Ok(image);
        }
        self.remove_stale(file.parent().unwrap_or(Path::new("/")));
        let draft = self.dir.join(format!("draft-{:016x}", rand::random::<u64>()));
        let made = nex_erofs::drive(file, &draft).map_err(ImageError::from);
        match made.and_then(|_written| Ok(fs::rename(&draft, &image)?)) {
            Ok(()) => Ok(image),
            Err(error) => {
                drop(fs::remove_file(&draft));
                Err(error)
            }
        }
    }

    /// Removes the images whose artifact is gone, so that this cache is bounded like that of the artifacts. A machine with an attached
    /// image keeps it by its own link.
    fn remove_stale(&self, artifacts: &Path) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let image = entry.path();
            let artifact = image.file_stem().map(|stem| artifacts.join(stem));
            let is_image = image.extension().is_some_and(|extension| extension == EXTENSION);
            if is_image && artifact.is_some_and(|artifact| !artifact.exists()) {
                drop(fs::remove_file(image));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_made_once_and_goes_with_its_artifact() {
        let home = tempfile::tempdir().unwrap();
        let (artifacts, images) = (home.path().join("artifacts"), home.path().join("drives"));
        fs::create_dir(&artifacts).unwrap();
        fs::create_dir(&images).unwrap();
        let drives = Drives::open(images.clone()).unwrap();
        fs::write(artifacts.join("one"), b"1").unwrap();
        fs::write(artifacts.join("two"), b"2").unwrap();
        let one = drives.of(&artifacts.join("one")).unwrap();
        let made = fs::metadata(&one).unwrap().modified().unwrap();
        assert_eq!(drives.of(&artifacts.join("one")).unwrap(), one);
        assert_eq!(fs::metadata(&one).unwrap().modified().unwrap(), made);
        assert_eq!(fs::metadata(&one).unwrap().len() % 4096, 0);
        fs::remove_file(artifacts.join("one")).unwrap();
        drives.of(&artifacts.join("two")).unwrap();
        assert!(!one.exists() && drives.empty().exists());
        assert!(drives.of(&artifacts.join("three")).is_err());
        assert_eq!(fs::read_dir(images).unwrap().count(), 2);
    }
}

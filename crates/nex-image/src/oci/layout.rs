//! OCI layouts: a directory with `index.json` and blobs named by their digests.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::blobs::{BlobKind, Blobs, select_by_tag};
use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::OciError;
use super::image;
use crate::file::{FileError, read_bounded};
use crate::layers::ImageBuilder;
use crate::progress::Report;

/// A layout in a directory.
pub(super) struct Layout(PathBuf);

impl Layout {
    /// A layout and one of its images.
    pub(super) fn open(dir: &Path, tag: Option<&str>) -> Result<(Self, Document, Descriptor), OciError> {
        let index = Document::parse(&read_bounded(&dir.join("index.json"), MAX_DOCUMENT)?, "index.json")?;
        let mut blobs = Self(dir.to_owned());
        let (document, descriptor) = select_by_tag(&mut blobs, index, &dir.display().to_string(), tag)?;
        Ok((blobs, document, descriptor))
    }

    fn path(&self, blob: &Descriptor) -> PathBuf {
        // A digest is 64 hexadecimal digits, so the path stays in the layout.
        self.0.join("blobs/sha256").join(blob.digest.hex())
    }
}

impl Blobs for Layout {
    fn open(&mut self, blob: &Descriptor, _kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        let path = self.path(blob);
        Ok(Box::new(File::open(&path).map_err(FileError::reading(&path))?))
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.path(blob).is_file()
    }
}

/// Loads an image of a layout; returns its digest.
pub(crate) fn load(
    dir: &Path,
    tag: Option<&str>,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<String, OciError> {
    let (mut blobs, document, descriptor) = Layout::open(dir, tag)?;
    image::load(&mut blobs, document, builder, report)?;
    Ok(descriptor.digest.to_string())
}

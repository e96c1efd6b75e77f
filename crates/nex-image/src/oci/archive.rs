//! OCI archives: a layout in one tar file, read in place; only an index of its files is held in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use super::blobs::{BlobKind, Blobs, select_by_tag};
use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::OciError;
use super::image;
use crate::file::FileError;
use crate::layers::ImageBuilder;
use crate::progress::Report;

/// Most files read of an archive; it has a few besides its blobs.
const MAX_FILES: usize = 100_000;

struct Archive {
    file: File,
    /// Offset and length of each file, by name.
    index: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn scan(file: File) -> io::Result<Self> {
        let mut index = HashMap::new();
        // Raw: names of blobs are short, while the tar crate would read an extended name of any length into memory.
        for entry in tar::Archive::new(&file).entries_with_seek()?.raw(true).take(MAX_FILES) {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            index.insert(name, (entry.raw_file_position(), entry.size()));
        }
        Ok(Self { file, index })
    }

    fn read(&self, name: &str) -> io::Result<io::Take<&File>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {name} in the archive"));
        let (at, len) = *self.index.get(name).ok_or_else(missing)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        Ok(file.take(len))
    }
}

impl Blobs for Archive {
    fn open(&mut self, blob: &Descriptor, _kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        let opened = self.read(&format!("blobs/sha256/{}", blob.digest.hex()));
        Ok(Box::new(opened.map_err(|source| OciError::Blob { digest: blob.digest.clone(), source })?))
    }
}

/// Loads an image of an archive; returns its digest.
pub(crate) fn load(
    path: &Path,
    tag: Option<&str>,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<String, OciError> {
    let failed = FileError::reading(path);
    let mut archive = File::open(path).and_then(Archive::scan).map_err(&failed)?;
    let mut bytes = Vec::new();
    archive.read("index.json").and_then(|index| index.take(MAX_DOCUMENT).read_to_end(&mut bytes)).map_err(&failed)?;
    let index = Document::parse(&bytes, "index.json")?;
    let (document, digest) = select_by_tag(&mut archive, index, &path.display().to_string(), tag)?;
    image::load(&mut archive, document, builder, report)?;
    Ok(digest)
}

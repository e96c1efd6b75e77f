//! OCI archives: a layout in one tar file, read in place; only an index of its files is held in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use tar::EntryType;

use super::blobs::{BlobKind, Blobs, select_by_tag};
use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::OciError;
use super::image;
use crate::file::FileError;
use crate::layers::ImageBuilder;
use crate::progress::Report;

/// Most files read of an archive; it has a few besides its blobs.
const MAX_FILES: usize = 100_000;

/// The files of a tar file.
pub(crate) struct Archive {
    file: File,
    /// Offset and length of each file, by name.
    index: HashMap<String, (u64, u64)>,
    /// Targets of links, by name, as those to layers in archives of older Docker.
    links: HashMap<String, String>,
}

impl Archive {
    /// Opens an archive that is not compressed.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        File::open(path).and_then(Self::scan).map_err(FileError::reading(path))
    }

    /// Finds the files.
    pub(crate) fn scan(file: File) -> io::Result<Self> {
        let (mut index, mut links) = (HashMap::new(), HashMap::new());
        // Raw: names of blobs are short, while the tar crate would read an extended name of any length into memory.
        for entry in tar::Archive::new(&file).entries_with_seek()?.raw(true).take(MAX_FILES) {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            match (entry.header().entry_type(), entry.link_name_bytes()) {
                (EntryType::Symlink | EntryType::Link, Some(target)) => {
                    links.insert(name, String::from_utf8_lossy(&target).trim_start_matches("../").to_owned());
                }
                _ => drop(index.insert(name, (entry.raw_file_position(), entry.size()))),
            }
        }
        Ok(Self { file, index, links })
    }

    /// The image of a layout in it.
    pub(crate) fn image(&mut self, path: &Path, tag: Option<&str>) -> Result<(Document, Descriptor), OciError> {
        let index = self.read_all("index.json").map_err(FileError::reading(path))?;
        let index = Document::parse(&index, "index.json")?;
        select_by_tag(self, index, &path.display().to_string(), tag)
    }

    /// Name, offset and length of each file.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.index.iter().map(|(name, (at, len))| (name.as_str(), *at, *len))
    }

    /// Whether there is such a file.
    pub(super) fn has_file(&self, name: &str) -> bool {
        self.index.contains_key(name) || self.links.get(name).is_some_and(|target| self.index.contains_key(target))
    }

    /// A document in it.
    pub(super) fn read_all(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(name)?.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file in it.
    pub(super) fn read(&self, name: &str) -> io::Result<io::Take<&File>> {
        let name = self.links.get(name).map_or(name, String::as_str);
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {name} in the archive"));
        let (at, len) = *self.index.get(name).ok_or_else(missing)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        Ok(file.take(len))
    }
}

fn blob_name(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

impl Blobs for Archive {
    fn open(&mut self, blob: &Descriptor, _kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        let opened = self.read(&blob_name(blob));
        Ok(Box::new(opened.map_err(|source| OciError::Blob { digest: blob.digest.clone(), source })?))
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.has_file(&blob_name(blob))
    }
}

/// Loads an image of an archive; returns its digest.
pub(crate) fn load(
    path: &Path,
    tag: Option<&str>,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<String, OciError> {
    let mut archive = Archive::open(path)?;
    let (document, descriptor) = archive.image(path, tag)?;
    image::load(&mut archive, document, builder, report)?;
    Ok(descriptor.digest.to_string())
}

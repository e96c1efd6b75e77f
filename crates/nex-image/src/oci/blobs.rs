//! Access to blobs, and verified reads of documents.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;

use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::OciError;
use super::verify::Verifying;
use crate::progress::{Progress, ProgressReader, Report};

/// Type of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// An index or manifest.
    Document,
    /// A layer.
    Layer,
}

/// A source of blobs.
pub(crate) trait Blobs {
    /// Opens a blob. The caller verifies it.
    fn open(&mut self, blob: &Descriptor, kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError>;

    /// Whether it has a blob.
    fn has(&self, _blob: &Descriptor) -> bool {
        true
    }

    /// Copies each of these blobs, verified, to where it goes.
    fn fill(&mut self, blobs: Vec<(&Descriptor, Region<'_>)>, report: &mut Report<'_>) -> Result<(), OciError> {
        let bytes = blobs.iter().map(|(blob, _)| blob.size).fold(0, u64::saturating_add);
        report(Progress::Begin { what: "Packing the image", bytes: Some(bytes) });
        for (blob, mut region) in blobs {
            let failed = |source| OciError::Blob { digest: blob.digest.clone(), source };
            let opened = self.open(blob, BlobKind::Layer)?;
            let mut verifying = Verifying::new(ProgressReader { inner: opened, report }, blob);
            io::copy(&mut verifying, &mut region).map_err(failed)?;
            verifying.finish().map_err(failed)?;
        }
        Ok(())
    }
}

/// A part of a file, written from its beginning; parts of one file can be written at once.
pub(crate) struct Region<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Region<'a> {
    /// The part that begins there.
    pub(super) fn new(file: &'a File, at: u64) -> Self {
        Self { file, at }
    }
}

impl Write for Region<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads and verifies an index or manifest.
pub(crate) fn read_document(blobs: &mut dyn Blobs, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
    if descriptor.size > MAX_DOCUMENT {
        return Err(OciError::Unsupported("a manifest has more than 4 MiB"));
    }
    let failed = |source| OciError::Blob { digest: descriptor.digest.clone(), source };
    let mut verifying = Verifying::new(blobs.open(descriptor, BlobKind::Document)?, descriptor);
    let mut bytes = Vec::new();
    verifying.read_to_end(&mut bytes).map_err(failed)?;
    verifying.finish().map_err(failed)?;
    Ok(bytes)
}

/// Selects the image with a tag, or the only image; returns its document and descriptor.
pub(crate) fn select_by_tag(
    blobs: &mut dyn Blobs,
    index: Document,
    place: &str,
    tag: Option<&str>,
) -> Result<(Document, Descriptor), OciError> {
    const TAG: &str = "org.opencontainers.image.ref.name";
    let manifests = index.manifests.ok_or(OciError::Unsupported("index.json names no manifests"))?;
    let named = |found: &Descriptor| found.annotations.get(TAG).cloned();
    let fitting: Vec<&Descriptor> = manifests.iter().filter(|found| tag.is_none() || named(found).as_deref() == tag).collect();
    let [one] = fitting.as_slice() else {
        let tags = manifests.iter().filter_map(named).collect::<Vec<_>>().join(", ");
        let tags = if tags.is_empty() { tags } else { format!(" ({tags})") };
        return Err(OciError::Ambiguous { place: place.to_owned(), count: fitting.len(), tags });
    };
    let bytes = read_document(blobs, one)?;
    Ok((Document::parse(&bytes, "its manifest")?, (*one).clone()))
}

//! Access to blobs, and verified reads of documents.

use std::io::Read;

use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::OciError;
use super::verify::Verifying;

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

/// Selects the image with a tag, or the only image; returns its document and digest.
pub(crate) fn select_by_tag(
    blobs: &mut dyn Blobs,
    index: Document,
    place: &str,
    tag: Option<&str>,
) -> Result<(Document, String), OciError> {
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
    Ok((Document::parse(&bytes, "its manifest")?, one.digest.to_string()))
}

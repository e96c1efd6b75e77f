//! An image whose blobs lie in a store that knows them by their digests and nothing of images.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use super::blobs::{BlobKind, Blobs, read_document};
use super::document::{Descriptor, Document, Platform};
use super::error::OciError;
use super::pack::{self, Packed};
use super::reference::Digest;
use super::registry::is_known_type;
use crate::progress::{Progress, Report};

/// Opens a blob of a store. What it gives is verified.
pub type OpenBlob<'a> = dyn FnMut(&Digest) -> io::Result<Box<dyn Read + 'a>> + 'a;

/// An image in a store.
pub struct StoredImage<'a> {
    top: Descriptor,
    /// Sizes of the blobs that are there, by their digests in hexadecimal.
    sizes: HashMap<String, u64>,
    platforms: Vec<Platform>,
    open: Box<OpenBlob<'a>>,
}

impl std::fmt::Debug for StoredImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredImage").field("top", &self.top).finish_non_exhaustive()
    }
}

impl<'a> StoredImage<'a> {
    /// The image with this digest, of these blobs; of one for several platforms those that are wanted, all if none is named.
    ///
    /// # Errors
    /// Its manifest is not among the blobs.
    pub fn new(
        (digest, media_type): (Digest, Option<String>),
        blobs: impl IntoIterator<Item = (Digest, u64)>,
        platforms: Vec<Platform>,
        open: Box<OpenBlob<'a>>,
    ) -> Result<Self, OciError> {
        let sizes: HashMap<_, _> = blobs.into_iter().map(|(digest, size)| (digest.hex().to_owned(), size)).collect();
        let size = *sizes.get(digest.hex()).ok_or(OciError::Unsupported("its manifest is not among its blobs"))?;
        let media_type = media_type.filter(|media_type| is_known_type(media_type));
        Ok(Self { top: Descriptor { media_type, ..Descriptor::new(digest, size) }, sizes, platforms, open })
    }

    /// Packs it into an empty file.
    ///
    /// # Errors
    /// [`OciError`]; what was written is then no archive.
    pub fn pack(mut self, out: &File, report: &mut Report<'_>) -> Result<Packed, OciError> {
        report(Progress::Begin { what: "Reading the image's manifests", bytes: None });
        let top = self.top.clone();
        let document = Document::parse(&read_document(&mut self, &top)?, "the manifest")?;
        let wanted = self.platforms.clone();
        pack::pack_for(&mut self, document, &top, &wanted, (out, report))
    }
}

impl Blobs for StoredImage<'_> {
    fn open(&mut self, blob: &Descriptor, _kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        let failed = |source| OciError::Blob { digest: blob.digest.clone(), source };
        if !self.sizes.contains_key(blob.digest.hex()) {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it is not among the blobs of the image")));
        }
        (self.open)(&blob.digest).map(|reader| reader as Box<dyn Read>).map_err(failed)
    }

    fn has(&self, blob: &Descriptor) -> bool {
        let wanted = |platform: &Platform| self.platforms.is_empty() || self.platforms.contains(platform);
        self.sizes.contains_key(blob.digest.hex()) && blob.platform.as_ref().is_none_or(wanted)
    }
}

//! Images of the Open Container Initiative (and of Docker, which has the same shape): an index leads to the manifest for this machine, the
//! manifest to layers. Wherever blobs come from, each is verified against its digest and size before the image counts as read.

pub(crate) mod archive;
pub(crate) mod layout;
pub mod reference;
pub mod registry;
mod verify;

use std::io::{self, Read};

use serde::Deserialize;

pub use reference::{Digest, Reference, ReferenceError};
pub use registry::{Credentials, RegistryError};
use verify::Verifying;

use crate::base::{Into, LayerError, decompress, layer, read_tar};
use crate::file::{FileError, hex};
use crate::progress::{Counted, Progress, Report};

/// Largest index or manifest read, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;
/// Most layers of an image.
const MAX_LAYERS: usize = 500;
/// Deepest nesting of indexes.
const MAX_NESTING: usize = 4;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of the layout or archive.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A blob that is not there, cut off, or not what its digest says.
    #[error("blob {digest} of the image cannot be used")]
    Blob {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// An index or manifest that is none.
    #[error("{what} of the image is broken")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An image for other machines.
    #[error("the image is not for {wanted}, only for {offered}; next: name an image for {wanted}")]
    Platform {
        /// This machine.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// Something no image has.
    #[error("the image is refused: {0}")]
    Shape(&'static str),
    /// Which of several.
    #[error("{place} has {count} images{tags}; next: name one of them by its tag, as in oci:DIR:TAG")]
    WhichOne {
        /// The layout.
        place: String,
        /// How many.
        count: usize,
        /// Their tags.
        tags: String,
    },
    /// What is in a layer.
    #[error("layer {digest} cannot be used")]
    Layer {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
}

/// What points to a blob.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Platform {
    fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }

    fn shown(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

/// An index has manifests, a manifest has layers.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, OciError> {
        serde_json::from_slice(bytes).map_err(|source| OciError::Document { what: what.to_owned(), source })
    }
}

/// What is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// An index or manifest.
    Document,
    /// A layer.
    Layer,
}

/// Where blobs come from.
pub(crate) trait Blobs {
    /// Opens one; what is read of it is verified by the caller.
    fn open(&mut self, blob: &Descriptor, kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError>;
}

/// Puts the image that a document is or leads to into the tree.
pub(crate) fn gather(blobs: &mut dyn Blobs, top: Document, into: &mut Into, report: &mut Report<'_>) -> Result<(), OciError> {
    let layers = manifest(blobs, top)?;
    if layers.len() > MAX_LAYERS {
        return Err(OciError::Shape("it has more than 500 layers"));
    }
    for (index, layer) in layers.iter().enumerate() {
        let what = format!("Layer {} of {}", index + 1, layers.len());
        report(Progress::Begin { what: &what, bytes: Some(layer.size) });
        one_layer(blobs, layer, into, report)?;
    }
    Ok(())
}

fn one_layer(blobs: &mut dyn Blobs, layer: &Descriptor, into: &mut Into, report: &mut Report<'_>) -> Result<(), OciError> {
    let failed = |source| OciError::Layer { digest: layer.digest.clone(), source };
    let blob = |source| OciError::Blob { digest: layer.digest.clone(), source };
    let opened = Counted { inner: blobs.open(layer, BlobKind::Layer)?, report };
    let mut verifying = Verifying::new(opened, layer);
    let read = decompress(&mut verifying).map_err(LayerError::from).and_then(|reader| read_tar(reader, into));
    // Bytes that are not those meant explain everything else that is wrong with them.
    verifying.finish().map_err(blob)?;
    layer::apply(&mut into.tree, read.map_err(failed)?, layer::Whiteouts::Apply).map_err(failed)
}

/// The layers of the manifest for this machine.
fn manifest(blobs: &mut dyn Blobs, mut document: Document) -> Result<Vec<Descriptor>, OciError> {
    for _ in 0..MAX_NESTING {
        let Some(manifests) = document.manifests else {
            return document
                .layers
                .ok_or(OciError::Shape("its manifest has no layers; images of the first schema are not supported"));
        };
        document = Document::parse(&read_document(blobs, &choose(manifests)?)?, "a manifest")?;
    }
    Err(OciError::Shape("its indexes are nested too deep"))
}

pub(crate) fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor, OciError> {
    let wanted = Platform::of_this_machine();
    let offered =
        manifests.iter().filter_map(|found| found.platform.as_ref()).map(Platform::shown).collect::<Vec<_>>().join(", ");
    let mut fitting = manifests.into_iter().filter(|found| found.platform.as_ref().is_none_or(|platform| *platform == wanted));
    fitting.next().ok_or_else(|| OciError::Platform { wanted: wanted.shown(), offered })
}

/// A verified index or manifest.
pub(crate) fn read_document(blobs: &mut dyn Blobs, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
    if descriptor.size > MAX_DOCUMENT {
        return Err(OciError::Shape("a manifest has more than 4 MiB"));
    }
    let failed = |source| OciError::Blob { digest: descriptor.digest.clone(), source };
    let mut verifying = Verifying::new(blobs.open(descriptor, BlobKind::Document)?, descriptor);
    let mut bytes = Vec::new();
    verifying.read_to_end(&mut bytes).map_err(failed)?;
    verifying.finish().map_err(failed)?;
    Ok(bytes)
}

/// The one image of a layout, or the one with that tag: its document and the digest by which it can be named.
pub(crate) fn pick(
    blobs: &mut dyn Blobs,
    index: Document,
    place: &str,
    tag: Option<&str>,
) -> Result<(Document, String), OciError> {
    const TAG: &str = "org.opencontainers.image.ref.name";
    let manifests = index.manifests.ok_or(OciError::Shape("index.json names no manifests"))?;
    let named = |found: &Descriptor| found.annotations.get(TAG).cloned();
    let fitting: Vec<&Descriptor> = manifests.iter().filter(|found| tag.is_none() || named(found).as_deref() == tag).collect();
    let [one] = fitting.as_slice() else {
        let tags = manifests.iter().filter_map(named).collect::<Vec<_>>().join(", ");
        let tags = if tags.is_empty() { tags } else { format!(" ({tags})") };
        return Err(OciError::WhichOne { place: place.to_owned(), count: fitting.len(), tags });
    };
    let bytes = read_document(blobs, one)?;
    Ok((Document::parse(&bytes, "its manifest")?, one.digest.to_string()))
}

/// The digest of bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex(&sha2::Sha256::digest(bytes)))
}

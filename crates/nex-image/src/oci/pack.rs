//! Packs an image of a layout, an archive or a registry into one archive: a layout with this image and nothing else, the same bytes for
//! the same image whatever it came from and when. Every blob is verified on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tar::Header;

use super::archive::Archive;
use super::blobs::{Blobs, Region, read_document};
use super::credentials::RegistryAccess;
use super::docker::{self, DockerImage};
use super::document::{Descriptor, Document, Platform};
use super::error::OciError;
use super::layout::Layout;
use super::reference::Reference;
use super::registry::Client;
use crate::file::FileError;
use crate::layers::decompress;
use crate::progress::Report;

/// Deepest nesting of indexes.
const MAX_NESTING: usize = 4;
/// Most documents of an image: platforms, and indexes of them.
const MAX_DOCUMENTS: usize = 200;
/// Most bytes of an archive.
const MAX_ARCHIVE: u64 = 64 << 30;
/// Bytes of a block of a tar file.
const BLOCK: u64 = 512;

/// Where an image is, and its tag if there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A directory with an OCI layout.
    Layout(PathBuf, Option<String>),
    /// A tar file with an OCI layout, or of `docker save`, compressed or not.
    Archive(PathBuf, Option<String>),
    /// A registry.
    Registry {
        /// Name of the image.
        reference: Reference,
        /// How to talk to the registry.
        access: RegistryAccess,
        /// Of an image for several platforms, which to take; all that there are if empty.
        platforms: Vec<Platform>,
    },
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the image: of its manifest or index.
    pub digest: String,
    /// What it can run on.
    pub platforms: Vec<Platform>,
}

impl ImageSource {
    /// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, the path of a directory with a layout, or of a tar
    /// file with an image; nothing if the text is none of these.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let tagged = |prefix: &str| text.strip_prefix(prefix).filter(|rest| !rest.starts_with("//")).map(with_tag);
        if let Some((path, tag)) = tagged("oci:") {
            return Some(Self::Layout(path, tag));
        }
        if let Some((path, tag)) = tagged("oci-archive:").or_else(|| tagged("docker-archive:")) {
            return Some(Self::Archive(path, tag));
        }
        let path = Path::new(text);
        if path.is_dir() {
            return path.join("index.json").is_file().then(|| Self::Layout(path.to_owned(), None));
        }
        let archive = open_archive(path).ok()?;
        let is_image = archive.has_file("index.json") || archive.has_file(docker::LIST);
        is_image.then(|| Self::Archive(path.to_owned(), None))
    }

    /// Its file or directory, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout(path, _) | Self::Archive(path, _) => Some(path),
            Self::Registry { .. } => None,
        }
    }

    /// Packs it into an empty file.
    ///
    /// # Errors
    /// [`OciError`]; what was written is then no archive.
    pub fn pack(&self, out: &File, report: &mut Report<'_>) -> Result<Packed, OciError> {
        match self {
            Self::Layout(dir, tag) => {
                let (mut blobs, document, top) = Layout::open(dir, tag.as_deref())?;
                pack(&mut blobs, document, &top, (out, report))
            }
            Self::Archive(path, tag) => {
                let mut archive = open_archive(path)?;
                if archive.has_file("index.json") {
                    let (document, top) = archive.image(path, tag.as_deref())?;
                    return pack(&mut archive, document, &top, (out, report));
                }
                let (mut blobs, document, top) = DockerImage::open(archive, path, tag.as_deref())?;
                pack(&mut blobs, document, &top, (out, report))
            }
            Self::Registry { reference, access, platforms } => {
                let (mut client, document, top) = Client::open(reference, access, platforms.clone(), report)?;
                pack_for(&mut client, document, &top, platforms, (out, report))
            }
        }
    }
}

/// Splits `PATH:TAG`; a text with a slash after its last colon is only a path.
pub(crate) fn with_tag(text: &str) -> (PathBuf, Option<String>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() && !tag.is_empty() => (path.into(), Some(tag.to_owned())),
        _ => (text.into(), None),
    }
}

/// Opens an archive, through an unnamed file where it is compressed.
fn open_archive(path: &Path) -> Result<Archive, OciError> {
    let open = || -> io::Result<Archive> {
        let mut file = File::open(path)?;
        let mut head = [0; 4];
        let read = file.read(&mut head)?;
        file.rewind()?;
        let is_compressed = matches!(head.get(..read), Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]));
        if !is_compressed {
            return Archive::scan(file);
        }
        let mut plain = tempfile::tempfile()?;
        let copied = io::copy(&mut decompress(file)?.take(MAX_ARCHIVE), &mut plain)?;
        if copied == MAX_ARCHIVE {
            return Err(io::Error::other("it has more than 64 GiB"));
        }
        plain.rewind()?;
        Archive::scan(plain)
    };
    Ok(open().map_err(FileError::reading(path))?)
}

/// What an image consists of.
#[derive(Default)]
struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Descriptor>,
    platforms: BTreeSet<Platform>,
}

/// Packs an image for some of these platforms; any will do if none is named.
pub(super) fn pack_for(
    blobs: &mut dyn Blobs,
    document: Document,
    top: &Descriptor,
    platforms: &[Platform],
    out: (&File, &mut Report<'_>),
) -> Result<Packed, OciError> {
    if let Some(manifests) = &document.manifests
        && !manifests.iter().any(|manifest| blobs.has(manifest))
    {
        let shown =
            |platforms: &mut dyn Iterator<Item = &Platform>| platforms.map(Platform::shown).collect::<Vec<_>>().join(", ");
        let mut offered = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        let (wanted, offered) = (shown(&mut platforms.iter()), shown(&mut offered));
        return Err(OciError::Platform { wanted, offered });
    }
    pack(blobs, document, top, out)
}

fn pack(
    blobs: &mut dyn Blobs,
    document: Document,
    top: &Descriptor,
    (out, report): (&File, &mut Report<'_>),
) -> Result<Packed, OciError> {
    let mut contents = Contents::default();
    contents.documents.insert(top.digest.hex().to_owned(), read_document(blobs, top)?);
    contents.collect(blobs, document, 0)?;
    if contents.platforms.is_empty() {
        return Err(OciError::Unsupported("none of the images that its index names is there"));
    }
    if contents.blobs.values().map(|blob| blob.size).fold(0, u64::saturating_add) > MAX_ARCHIVE {
        return Err(OciError::Unsupported("it has more than 64 GiB"));
    }
    let failed = |source| OciError::Pack { source };
    let mut tar = Tar { out, at: 0 };
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    let mut entry = BTreeMap::from([("digest", json!(top.digest.to_string())), ("size", json!(top.size))]);
    entry.extend(top.media_type.as_ref().map(|media_type| ("mediaType", json!(media_type))));
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    tar.file("index.json", index.as_bytes()).map_err(failed)?;
    for (digest, bytes) in &contents.documents {
        tar.file(&format!("blobs/sha256/{digest}"), bytes).map_err(failed)?;
    }
    let mut regions = Vec::new();
    for (digest, descriptor) in &contents.blobs {
        let region = tar.entry(&format!("blobs/sha256/{digest}"), descriptor.size).map_err(failed)?;
        regions.push((descriptor, region));
    }
    tar.finish().map_err(failed)?;
    blobs.fill(regions, report)?;
    Ok(Packed { digest: top.digest.to_string(), platforms: contents.platforms.into_iter().collect() })
}

impl Contents {
    /// Collects what a document refers to; of an index, the images that are there.
    fn collect(&mut self, blobs: &mut dyn Blobs, document: Document, depth: usize) -> Result<(), OciError> {
        if depth > MAX_NESTING || self.documents.len() > MAX_DOCUMENTS {
            return Err(OciError::Unsupported("its indexes are nested too deep or name too many images"));
        }
        let Some(manifests) = document.manifests else {
            let layers = document.layers.unwrap_or_default();
            let config = document.config.ok_or(OciError::Unsupported("its manifest has no configuration"))?;
            let bytes = read_document(blobs, &config)?;
            let platform = serde_json::from_slice(&bytes)
                .map_err(|source| OciError::Document { what: "the configuration".to_owned(), source })?;
            self.platforms.insert(platform);
            self.blobs.extend(layers.into_iter().chain([config]).map(|blob| (blob.digest.hex().to_owned(), blob)));
            return Ok(());
        };
        for manifest in manifests {
            // Attestations are no images.
            let is_image = manifest.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            if !is_image || !blobs.has(&manifest) || self.documents.contains_key(manifest.digest.hex()) {
                continue;
            }
            let bytes = read_document(blobs, &manifest)?;
            let document = Document::parse(&bytes, "a manifest")?;
            self.documents.insert(manifest.digest.hex().to_owned(), bytes);
            self.collect(blobs, document, depth + 1)?;
        }
        Ok(())
    }
}

/// A tar file whose entries are laid out before their contents are there, so that these can be written in any order, and at once.
struct Tar<'a> {
    out: &'a File,
    /// Where the next entry begins.
    at: u64,
}

impl<'a> Tar<'a> {
    /// Makes room for a file; what is not written of it are zeros.
    fn entry(&mut self, name: &str, size: u64) -> io::Result<Region<'a>> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all_at(header.as_bytes(), self.at)?;
        let content = self.at + BLOCK;
        self.at = content + size.next_multiple_of(BLOCK);
        Ok(Region::new(self.out, content))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, bytes.len() as u64)?.write_all(bytes)
    }

    /// Ends it: by two empty blocks.
    fn finish(self) -> io::Result<()> {
        self.out.set_len(self.at + 2 * BLOCK)
    }
}

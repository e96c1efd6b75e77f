//! What is in an archive that was packed here: its blobs, each at its place, and the same as a layout in a directory.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde_json::json;

use super::archive::Archive;
use super::document::Document;
use super::error::OciError;
use super::reference::Digest;
use crate::file::FileError;
use crate::progress::{Progress, ProgressReader, Report};

const BLOBS: &str = "blobs/sha256/";

/// A blob in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBlob {
    /// Its digest.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// Where it begins in the archive, in bytes.
    pub offset: u64,
}

/// An archive that was packed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Digest of the image: of its manifest or index.
    pub digest: Digest,
    /// Type of that, where it is known.
    pub media_type: Option<String>,
    /// All its blobs.
    pub blobs: Vec<PackedBlob>,
}

impl Contents {
    /// Looks into an archive.
    ///
    /// # Errors
    /// [`OciError`]
    pub fn of(path: &Path) -> Result<Self, OciError> {
        let archive = Archive::open(path)?;
        let mut blobs = Vec::new();
        for (name, offset, size) in archive.files() {
            let Some(hex) = name.strip_prefix(BLOBS) else { continue };
            let digest = format!("sha256:{hex}").try_into();
            let digest = digest.map_err(|_none| OciError::Unsupported("a blob in its archive is not named by its digest"))?;
            blobs.push(PackedBlob { digest, size, offset });
        }
        blobs.sort_by_key(|blob| blob.offset);
        let index = archive.read_all("index.json").map_err(FileError::reading(path))?;
        let index = Document::parse(&index, "index.json")?;
        let [top] = index.manifests.as_deref().unwrap_or_default() else {
            return Err(OciError::Unsupported("its archive was not packed by nex"));
        };
        Ok(Self { digest: top.digest.clone(), media_type: top.media_type.clone(), blobs })
    }
}

/// Writes what was packed as a layout into a directory, which is made; under this tag.
///
/// # Errors
/// [`OciError`]; a directory with something in it is refused.
pub fn write_layout(archive: &Path, dir: &Path, tag: &str, report: &mut Report<'_>) -> Result<(), OciError> {
    let contents = Contents::of(archive)?;
    let writing = FileError::writing(dir);
    let is_empty = || Ok::<_, io::Error>(!dir.exists() || fs::read_dir(dir)?.next().is_none());
    if !is_empty().map_err(&writing)? {
        return Err(OciError::Unsupported("the directory for it is not empty; next: name another one"));
    }
    let opened = Archive::open(archive)?;
    let bytes = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    report(Progress::Begin { what: "Writing the layout", bytes: Some(bytes) });
    let write = |report: &mut Report<'_>| -> io::Result<()> {
        fs::create_dir_all(dir.join(BLOBS))?;
        let mut top = 0;
        for PackedBlob { digest, size, .. } in &contents.blobs {
            let mut from = ProgressReader { inner: opened.read(&format!("{BLOBS}{}", digest.hex()))?, report };
            io::copy(&mut from.by_ref(), &mut File::create_new(dir.join(BLOBS).join(digest.hex()))?)?;
            top = if *digest == contents.digest { *size } else { top };
        }
        let mut entry = json!({
            "digest": contents.digest.to_string(), "size": top, "annotations": {"org.opencontainers.image.ref.name": tag},
        });
        if let (Some(media_type), Some(entry)) = (&contents.media_type, entry.as_object_mut()) {
            entry.insert("mediaType".to_owned(), json!(media_type));
        }
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        File::create_new(dir.join("index.json"))?.write_all(index.to_string().as_bytes())?;
        File::create_new(dir.join("oci-layout"))?.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#)
    };
    Ok(write(report).map_err(writing)?)
}

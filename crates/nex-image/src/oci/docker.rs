//! Archives of `docker save` without a layout in them: a list of images, each with its configuration and its layers, from which the
//! manifest is made that they lack.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::archive::Archive;
use super::blobs::{BlobKind, Blobs};
use super::document::{Descriptor, Document};
use super::error::OciError;
use super::reference::Digest;
use crate::file::{FileError, hex};

/// Names the images.
pub(super) const LIST: &str = "manifest.json";
/// Most layers of an image; Docker itself makes no more than 127.
const MAX_LAYERS: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The blobs of one image.
pub(super) struct DockerImage {
    archive: Archive,
    /// What is in which file, by the digits of its digest.
    files: BTreeMap<String, String>,
    manifest: Vec<u8>,
}

impl DockerImage {
    /// Finds the image and reads all of it once, for its digests.
    pub(super) fn open(archive: Archive, path: &Path, tag: Option<&str>) -> Result<(Self, Document, Descriptor), OciError> {
        let failed = FileError::reading(path);
        let list = archive.read_all(LIST).map_err(&failed)?;
        let list: Vec<Listed> =
            serde_json::from_slice(&list).map_err(|source| OciError::Document { what: LIST.to_owned(), source })?;
        let image = select(&list, path, tag)?;
        if image.layers.len() > MAX_LAYERS {
            return Err(OciError::Unsupported("it has more than 500 layers"));
        }
        let mut files = BTreeMap::new();
        let mut blob = |name: &String| -> Result<serde_json::Value, OciError> {
            let (digest, size) = archive.read(name).and_then(hash).map_err(&failed)?;
            files.insert(digest.clone(), name.clone());
            Ok(json!({"mediaType": "application/octet-stream", "digest": format!("sha256:{digest}"), "size": size}))
        };
        let config = blob(&image.config)?;
        let layers = image.layers.iter().map(&mut blob).collect::<Result<Vec<_>, _>>()?;
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes();
        let top = Descriptor::new(Digest::of(&manifest), manifest.len() as u64);
        let document = Document::parse(&manifest, "its manifest")?;
        Ok((Self { archive, files, manifest }, document, top))
    }
}

fn select<'a>(list: &'a [Listed], path: &Path, tag: Option<&str>) -> Result<&'a Listed, OciError> {
    let tags = |image: &Listed| image.repo_tags.clone().unwrap_or_default();
    let is_named = |image: &Listed, tag: &str| tags(image).iter().any(|name| name == tag || name.rsplit(':').next() == Some(tag));
    let fitting: Vec<&Listed> = list.iter().filter(|image| tag.is_none_or(|tag| is_named(image, tag))).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        several => {
            let tags = list.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
            let tags = if tags.is_empty() { tags } else { format!(" ({tags})") };
            Err(OciError::Ambiguous { place: path.display().to_string(), count: several.len(), tags })
        }
    }
}

fn hash(mut from: impl Read) -> std::io::Result<(String, u64)> {
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 17]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((hex(&hasher.finalize()), size));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        size += count as u64;
    }
}

impl Blobs for DockerImage {
    fn open(&mut self, blob: &Descriptor, _kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        match self.files.get(blob.digest.hex()) {
            None => Ok(Box::new(Cursor::new(&self.manifest))),
            Some(name) => {
                let failed = |source| OciError::Blob { digest: blob.digest.clone(), source };
                Ok(Box::new(self.archive.read(name).map_err(failed)?))
            }
        }
    }
}

//! Images of the namespace, kept in NATS: packed as those of a registry are, each blob verified on the way.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use nex_client::image::{BlobReader, ImageStore};
use nex_image::oci::{Digest, OciError, Packed, Platform, StoredImage};
use nex_image::progress::Report;
use nex_protocol::image_store::{ImageName, ImageRecord};
use tokio::runtime::Handle;

use super::cache::{ImageCache, PulledImage};
use crate::env::Env;
use crate::output::Output;
use crate::progress::steps_bar;
use crate::session::Session;

/// Pulls an image of the namespace, or finds it pulled.
pub(super) async fn pull(
    name: &ImageName,
    platforms: Vec<Platform>,
    env: &Env,
    session: &Session,
    output: &Output,
) -> anyhow::Result<PulledImage> {
    let store = session.client.image_store(session.jetstream_domain.as_deref()).await?;
    let store = store.ok_or_else(|| session.client.no_image(name))?;
    let record = store.image(name).await?;
    // For those that it was pushed for, so that what was pulled for them before is found, wherever it came from.
    let is_there = |platform: &Platform| record.platforms.contains(&format!("{}/{}", platform.os, platform.architecture));
    let wanted = match platforms.iter().any(is_there) {
        true => platforms.into_iter().filter(is_there).collect(),
        false => platforms,
    };
    let (cache, digest) = (ImageCache::open(env)?, oci_digest(&record.top.digest)?);
    if let Some(pulled) = cache.find(&digest, &wanted) {
        return Ok(pulled);
    }
    let draft = cache.draft()?;
    let mut report = steps_bar(output);
    let Packed { platforms: packed, .. } = pack(&store, &record, wanted, draft.as_file(), &mut report)?;
    // For what is in it, not for what its tag says: another pull of this digest may find it.
    cache.keep(draft, &digest, &packed, &packed)
}

/// Packs an image of the namespace into an empty file. Blocks.
pub(crate) fn pack(
    store: &ImageStore,
    record: &ImageRecord,
    platforms: Vec<Platform>,
    out: &File,
    report: &mut Report<'_>,
) -> anyhow::Result<Packed> {
    let mut blobs = Vec::new();
    for blob in &record.blobs {
        blobs.push((oci_digest(&blob.digest)?, blob.size));
    }
    let runtime = Handle::current();
    let open = |digest: &Digest| -> io::Result<Box<dyn Read + '_>> {
        let blob = record.blobs.iter().find(|blob| blob.digest.to_string() == digest.hex());
        let blob = *blob.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let reader = runtime.block_on(store.blob(blob)).map_err(io::Error::other)?;
        Ok(Box::new(Blob { reader, part: Bytes::new(), runtime: runtime.clone() }))
    };
    let top = (oci_digest(&record.top.digest)?, record.media_type.clone());
    let packed: Result<Packed, OciError> = tokio::task::block_in_place(|| {
        let image = StoredImage::new(top, blobs, platforms, Box::new(open))?;
        image.pack(out, report)
    });
    Ok(packed?)
}

fn oci_digest(digest: &nex_protocol::digest::Digest) -> anyhow::Result<Digest> {
    format!("sha256:{digest}").try_into().context("it has no digest")
}

/// A blob that is read where blocking is allowed.
struct Blob {
    reader: BlobReader,
    part: Bytes,
    runtime: Handle,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.runtime.block_on(self.reader.next()).map_err(io::Error::other)? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let count = self.part.len().min(buffer.len());
        self.part.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

//! Loads an image: from an index to the manifest for this machine, then its layers.

use super::blobs::{BlobKind, Blobs, read_document};
use super::document::{Descriptor, Document, select_platform};
use super::error::OciError;
use super::verify::Verifying;
use crate::layers::{ImageBuilder, LayerError, decompress, layer, read_tar};
use crate::progress::{Progress, ProgressReader, Report};

/// Most layers of an image.
const MAX_LAYERS: usize = 500;
/// Deepest nesting of indexes.
const MAX_NESTING: usize = 4;

/// Loads the image of a document, which is its manifest or an index.
pub(crate) fn load(
    blobs: &mut dyn Blobs,
    top: Document,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<(), OciError> {
    let layers = manifest(blobs, top)?.layers;
    load_layers(blobs, &layers, builder, report)
}

/// Applies layers in their order.
pub(crate) fn load_layers(
    blobs: &mut dyn Blobs,
    layers: &[Descriptor],
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<(), OciError> {
    if layers.len() > MAX_LAYERS {
        return Err(OciError::Unsupported("it has more than 500 layers"));
    }
    for (index, layer) in layers.iter().enumerate() {
        let what = format!("Layer {} of {}", index + 1, layers.len());
        report(Progress::Begin { what: &what, bytes: Some(layer.size) });
        load_layer(blobs, layer, builder, report)?;
    }
    Ok(())
}

fn load_layer(
    blobs: &mut dyn Blobs,
    layer: &Descriptor,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<(), OciError> {
    let failed = |source| OciError::Layer { digest: layer.digest.clone(), source };
    let blob = |source| OciError::Blob { digest: layer.digest.clone(), source };
    let opened = ProgressReader { inner: blobs.open(layer, BlobKind::Layer)?, report };
    let mut verifying = Verifying::new(opened, layer);
    let read = decompress(&mut verifying).map_err(LayerError::from).and_then(|reader| read_tar(reader, builder));
    // Report a digest mismatch first: it explains any other error.
    verifying.finish().map_err(blob)?;
    layer::apply(&mut builder.tree, read.map_err(failed)?, layer::Whiteouts::Apply).map_err(failed)
}

/// What a manifest refers to.
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Vec<Descriptor>,
}

/// The manifest for this machine.
pub(crate) fn manifest(blobs: &mut dyn Blobs, mut document: Document) -> Result<Manifest, OciError> {
    for _ in 0..MAX_NESTING {
        let Some(manifests) = document.manifests else {
            let layers = document
                .layers
                .ok_or(OciError::Unsupported("its manifest has no layers; images of the first schema are not supported"))?;
            return Ok(Manifest { config: document.config, layers });
        };
        document = Document::parse(&read_document(blobs, &select_platform(manifests)?)?, "a manifest")?;
    }
    Err(OciError::Unsupported("its indexes are nested too deep"))
}

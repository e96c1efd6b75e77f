//! Entry points for `fuzz/`: the parsers of untrusted images.

use crate::layers::{Budget, Devices, ImageBuilder, Limits, Spool, decompress, layer, read_tar};
use crate::oci::{Document, Reference, select_platform};
use crate::{kernel, resources};

/// Applies a tarball or layer, compressed or not, to a tree.
///
/// # Errors
/// Why it is refused.
pub fn layer(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let budget = Budget::new(Limits { bytes: 1 << 20, entries: 1000, names: 1 << 16 });
    let (tree, spool) =
        (nex_erofs::Tree::new(nex_erofs::Meta::root(0o755)), Spool::create_beside(&std::env::temp_dir().join("image"))?);
    let mut builder = ImageBuilder { tree, spool, budget, latest: None, devices: Devices::None };
    let entries = read_tar(decompress(bytes)?, &mut builder)?;
    Ok(layer::apply(&mut builder.tree, entries, layer::Whiteouts::Apply)?)
}

/// Parses an index or manifest, and an image reference.
///
/// # Errors
/// Why it is refused.
pub fn document(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    drop(String::from_utf8_lossy(bytes).parse::<Reference>());
    let document = Document::parse(bytes, "it")?;
    drop(select_platform(document.manifests.unwrap_or_default())?);
    Ok(())
}

/// Packs the image of an archive.
///
/// # Errors
/// Why it is refused.
pub fn pack(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write as _;
    let mut archive = tempfile::NamedTempFile::new()?;
    archive.write_all(bytes)?;
    let source = crate::oci::ImageSource::Archive(archive.path().to_owned(), None);
    drop(source.pack(&tempfile::tempfile()?, &mut |_| ())?);
    Ok(())
}

/// Reads the configuration of an image.
///
/// # Errors
/// Why it is refused.
pub fn config(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    Ok(crate::workload::read_config(bytes)?)
}

/// Makes the root of a workload of an archive.
///
/// # Errors
/// Why it is refused.
pub fn workload(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write as _;
    let mut archive = tempfile::NamedTempFile::new()?;
    archive.write_all(bytes)?;
    let spool = tempfile::tempfile()?;
    crate::workload::build(archive.path(), spool, &mut tempfile::tempfile()?)?;
    Ok(())
}

/// Extracts the kernel of a library.
///
/// # Errors
/// Why the library is refused.
pub fn kernel(bytes: &[u8]) -> Result<Vec<u8>, kernel::KernelError> {
    kernel::from_library(bytes)
}

/// Extracts a member of a zip archive.
///
/// # Errors
/// Why the archive is refused.
pub fn zip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    resources::unpack::member(&mut file, "it.whl", "a/b")
}

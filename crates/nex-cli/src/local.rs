//! What is to be uploaded: a file as it is, or an image, which is packed into one file first.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nex_image::oci::{ImageSource, Packed};
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::WorkloadType;
use tempfile::NamedTempFile;

use crate::check::Usage;
use crate::output::Output;
use crate::progress::steps_bar;
use crate::remote::Remote;
use crate::sniff::sniff;

/// How an image is told from a file where its path alone does not say it.
const PREFIXES: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];

/// What is to be uploaded, and what it asks of a node.
#[derive(Debug)]
pub(crate) struct LocalArtifact {
    /// Its type.
    pub(crate) r#type: WorkloadType,
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// What to ask the nodes for.
    pub(crate) auction: AuctionRequest,
    /// The file itself, or the archive that the image was packed into.
    file: Result<PathBuf, NamedTempFile>,
}

impl LocalArtifact {
    /// Finds out what a file or directory is, and packs it if it is an image. Blocks.
    pub(crate) fn open(path: &Path, named: Option<WorkloadType>, output: &Output) -> anyhow::Result<Self> {
        match image(path, named) {
            Some(source) => Self::pack(&source, path, output),
            None if named == Some(WorkloadType::Oci) => {
                let why = "is no OCI image; next: give the directory of an OCI layout, or an archive by 'docker save' or \
                           'skopeo copy … oci-archive:FILE'";
                Err(Usage(format!("{} {why}", path.display())).into())
            }
            None => {
                let sniffed = sniff(path, named)?;
                Ok(Self { r#type: sniffed.r#type, what: sniffed.what, auction: sniffed.auction(), file: Ok(path.to_owned()) })
            }
        }
    }

    fn pack(source: &ImageSource, from: &Path, output: &Output) -> anyhow::Result<Self> {
        let file = NamedTempFile::with_prefix("nex-image-").context("cannot make a file to pack the image into")?;
        let packed = source.pack(file.as_file(), &mut steps_bar(output));
        let Packed { platforms, .. } = packed.with_context(|| format!("cannot use {} as an image", from.display()))?;
        let architectures: Vec<String> = platforms.into_iter().map(|platform| platform.architecture).collect();
        Ok(Self::of_image(Err(file), &architectures))
    }

    /// An image in an archive, which was packed before.
    pub(crate) fn of_packed(archive: PathBuf, architectures: &[String]) -> Self {
        Self::of_image(Ok(archive), architectures)
    }

    fn of_image(file: Result<PathBuf, NamedTempFile>, architectures: &[String]) -> Self {
        let arch = match architectures {
            [one] => Some(one.clone()),
            // Which of them depends on the node.
            _ => None,
        };
        let auction = AuctionRequest { arch, ..Self::image_auction() };
        Self { r#type: WorkloadType::Oci, what: "an OCI image", auction, file }
    }

    /// What to ask the nodes for an image that is not known yet.
    pub(crate) fn image_auction() -> AuctionRequest {
        let workload_types = Some(vec![WorkloadType::Oci.to_string()]);
        AuctionRequest { os: Some("linux".to_owned()), workload_types, ..AuctionRequest::default() }
    }

    /// The file to upload.
    pub(crate) fn file(&self) -> &Path {
        match &self.file {
            Ok(path) => path,
            Err(packed) => packed.path(),
        }
    }
}

/// The image that a path means, if it means one.
fn image(path: &Path, named: Option<WorkloadType>) -> Option<ImageSource> {
    if !matches!(named, None | Some(WorkloadType::Oci)) {
        return None;
    }
    ImageSource::of(path.to_str()?)
}

/// What a workload of this file or image is called if nobody says: the file's name, or the last part of the image's.
pub(crate) fn default_name(text: &Path) -> Result<String, Usage> {
    if let Some(remote) = Remote::of(text)? {
        return Ok(remote.name_and_tag().0.to_owned());
    }
    let source = text.to_str().filter(|text| PREFIXES.iter().any(|prefix| text.starts_with(prefix))).and_then(ImageSource::of);
    let path = source.as_ref().and_then(ImageSource::path).unwrap_or(text);
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// A path, or an image's, that begins at a directory.
pub(crate) fn in_directory(directory: &Path, text: &Path) -> PathBuf {
    if Remote::is_named(text) {
        return text.to_owned();
    }
    let tagged = text.to_str().and_then(|text| PREFIXES.iter().find_map(|prefix| Some((*prefix, text.strip_prefix(prefix)?))));
    match tagged {
        Some((prefix, rest)) => PathBuf::from(format!("{prefix}{}", directory.join(rest).display())),
        None => directory.join(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_image_is_known_and_begins_where_it_should() {
        for (text, name, within) in [
            ("a/shop.tar", "shop.tar", "/x/a/shop.tar"),
            ("oci:shop:v1", "shop", "oci:/x/shop:v1"),
            ("oci-archive:a/shop.tar:v1", "shop.tar", "oci-archive:/x/a/shop.tar:v1"),
            ("docker-archive:/abs.tar", "abs.tar", "docker-archive:/abs.tar"),
            ("oci://ghcr.io/me/shop:v1", "shop", "oci://ghcr.io/me/shop:v1"),
            ("image://me/shop:v1", "shop", "image://me/shop:v1"),
        ] {
            assert_eq!(default_name(Path::new(text)).unwrap(), name, "{text}");
            assert_eq!(in_directory(Path::new("/x"), Path::new(text)), Path::new(within), "{text}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused_as_one() {
        let output = Output::new(true, true);
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "() => 1").unwrap();
        assert_eq!(LocalArtifact::open(file.path(), Some(WorkloadType::V8), &output).unwrap().file(), file.path());
        let error = LocalArtifact::open(file.path(), Some(WorkloadType::Oci), &output).unwrap_err().to_string();
        assert!(error.contains("is no OCI image"), "{error}");
    }
}

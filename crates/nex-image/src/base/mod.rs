//! Bases of root images. Contents of archives are spooled to an unnamed file next to the image, not held in memory; contents of
//! directories are read when the image is written.

mod directory;
mod error;

use std::fs::File;
use std::path::{Path, PathBuf};

use nex_erofs::{Meta, Tree};

pub use crate::layers::LayerError;
pub use error::BaseError;

use crate::file::FileError;
use crate::layers::{Budget, Devices, ImageBuilder, Spool, decompress, layer, read_tar};
use crate::oci::{self, Reference, RegistryAccess, with_tag};
use crate::progress::{Progress, ProgressReader, Report};

/// What a root image contains besides the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Empty,
    /// The content of a directory.
    Dir(PathBuf),
    /// The content of a tarball, plain or compressed with gzip or zstd.
    Tarball(PathBuf),
    /// An image in an OCI layout: the directory, and a tag if it has several images.
    OciLayout(PathBuf, Option<String>),
    /// An image in a tar file of an OCI layout.
    OciArchive(PathBuf, Option<String>),
    /// An image of a registry.
    Registry {
        /// Name of the image.
        reference: Reference,
        /// How to talk to it.
        access: RegistryAccess,
    },
}

/// The tree of a base, and the digest of its OCI image.
#[derive(Debug)]
pub(crate) struct LoadedBase {
    pub(crate) tree: Tree,
    pub(crate) digest: Option<String>,
}

impl Base {
    /// Parses `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, the path of a directory or file, or else an image reference.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn of(text: &str, access: RegistryAccess) -> Result<Self, BaseError> {
        if let Some(layout) = text.strip_prefix("oci:") {
            let (path, tag) = with_tag(layout);
            return Ok(Self::OciLayout(path, tag));
        }
        if let Some(archive) = text.strip_prefix("oci-archive:") {
            let (path, tag) = with_tag(archive);
            return Ok(Self::OciArchive(path, tag));
        }
        let path = Path::new(text);
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(Self::Dir(path.to_owned())),
            Ok(_) => Ok(Self::Tarball(path.to_owned())),
            Err(_) if ["/", "./", "../"].iter().any(|start| text.starts_with(start)) => Err(BaseError::NotThere(path.to_owned())),
            Err(_) => match text.parse() {
                Ok(reference) => Ok(Self::Registry { reference, access }),
                Err(source) => Err(BaseError::Unknown { text: text.to_owned(), source }),
            },
        }
    }

    /// Loads the base; temporary files go next to the image, `out`.
    pub(crate) fn load(&self, mtime: Option<u64>, out: &Path, report: &mut Report<'_>) -> Result<LoadedBase, BaseError> {
        let meta = Meta { mtime: mtime.unwrap_or_default(), ..Meta::root(0o755) };
        let mut builder = ImageBuilder {
            tree: Tree::new(meta),
            spool: Spool::create_beside(out)?,
            budget: Budget::default(),
            latest: mtime,
            devices: Devices::Keep,
        };
        let digest = match self {
            Self::Empty => None,
            Self::Dir(dir) => {
                report(Progress::Begin { what: "Reading the directory", bytes: None });
                directory::load(dir, &mut builder)?;
                None
            }
            Self::Tarball(path) => {
                let file = File::open(path).map_err(FileError::reading(path))?;
                report(Progress::Begin { what: "Reading the tarball", bytes: file.metadata().ok().map(|meta| meta.len()) });
                let failed = |source| BaseError::Layer { from: path.display().to_string(), source };
                let reader = decompress(ProgressReader { inner: file, report }).map_err(|error| failed(error.into()))?;
                let entries = read_tar(reader, &mut builder).map_err(failed)?;
                layer::apply(&mut builder.tree, entries, layer::Whiteouts::Literal).map_err(failed)?;
                None
            }
            Self::OciLayout(dir, tag) => Some(oci::layout::load(dir, tag.as_deref(), &mut builder, report)?),
            Self::OciArchive(file, tag) => Some(oci::archive::load(file, tag.as_deref(), &mut builder, report)?),
            Self::Registry { reference, access } => Some(oci::registry::load(reference, access, &mut builder, report)?),
        };
        Ok(LoadedBase { tree: builder.tree, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_kind_of_base_it_means() {
        let of = |text: &str| Base::of(text, RegistryAccess::default());
        assert_eq!(of("oci:dir/x:v1").unwrap(), Base::OciLayout("dir/x".into(), Some("v1".into())));
        assert_eq!(of("oci:a:b/c").unwrap(), Base::OciLayout("a:b/c".into(), None));
        assert_eq!(of("oci-archive:x.tar").unwrap(), Base::OciArchive("x.tar".into(), None));
        assert_eq!(of("/").unwrap(), Base::Dir("/".into()));
        assert!(matches!(of("/proc/version").unwrap(), Base::Tarball(_)));
        assert!(matches!(of("./no/such/thing"), Err(BaseError::NotThere(_))));
        assert!(matches!(of("alpine:3.22").unwrap(), Base::Registry { .. }));
        assert!(of("No Image").unwrap_err().to_string().contains("neither a file nor a directory"));
    }
}

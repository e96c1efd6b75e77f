//! Roots of workloads: an OCI image as one read-only file system, with the places that a jail mounts over, and with what the image says
//! of its program ([`RUN_FILE`]).
//!
//! Called in a jail of its own: everything here is a stranger's word. Contents go through a file that the caller gives, so that only
//! names are in memory. What the image's user may read, everybody may: a sandbox has one user.

mod config;
mod user;

use std::fs::File;
use std::path::Path;

use nex_erofs::{Kind, Meta, Options, Source, Tree, TreeError, WriteError, Written};
use nex_process::jail::{IMAGE_DIRECTORIES, IMAGE_FILES};
use nex_protocol::image::{ImageRun, RUN_FILE};

use crate::layers::{Budget, Devices, ImageBuilder, LayerError, Limits, Spool, layer};
use crate::oci::{Archive, OciError, Platform, load_layers, manifest, read_document};
use config::ImageConfig;
use user::User;

/// Most bytes of a workload's image, unpacked.
pub const MAX_BYTES: u64 = 16 << 30;
/// Most files and directories of it, those that later layers remove among them.
pub const MAX_ENTRIES: u64 = 500_000;
/// Most bytes of their names.
pub const MAX_NAMES: u64 = 64 << 20;

/// Why an image makes no root.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadImageError {
    /// It cannot be loaded.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// Its configuration is none.
    #[error("the image's configuration is invalid")]
    Config(#[source] serde_json::Error),
    /// It has none.
    #[error("the image has no configuration, so that nobody knows what to run; next: build it with a tool that makes OCI images")]
    NoConfig,
    /// A list in it is too long.
    #[error("the image's environment or arguments are too long or have NUL bytes")]
    Items,
    /// It starts nowhere.
    #[error("the image's working directory '{0}' is no absolute path")]
    WorkingDirectory(String),
    /// It ends by no signal.
    #[error("the image's stop signal '{0}' is unknown")]
    StopSignal(String),
    /// It runs as nobody known.
    #[error("the image runs as '{0}', of whom its /etc/passwd or /etc/group knows nothing")]
    User(String),
    /// The place for something that the sandbox needs is taken.
    #[error("the image's {path} cannot be replaced by what the sandbox needs there")]
    Place {
        /// Which.
        path: String,
        /// Why.
        source: LayerError,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Makes the root of the image in an archive (of one image) and writes it to an empty file. `spool` is an empty file for contents.
///
/// # Errors
/// [`WorkloadImageError`]; what was written is no image then.
pub fn build(archive: &Path, spool: File, out: &mut File) -> Result<Written, WorkloadImageError> {
    let tree = load(archive, spool)?;
    Ok(tree.write(out, &Options::default())?)
}

/// Reads a configuration, for the fuzzer.
pub(crate) fn read_config(bytes: &[u8]) -> Result<(), WorkloadImageError> {
    let config = ImageConfig::parse(bytes)?;
    config.run(config.user().to_owned()).map(drop)
}

fn load(archive: &Path, spool: File) -> Result<Tree, WorkloadImageError> {
    let mut blobs = Archive::open(archive).map_err(OciError::from)?;
    let (document, _) = blobs.image(archive, None)?;
    let manifest = manifest(&mut blobs, document)?;
    let config = manifest.config.ok_or(WorkloadImageError::NoConfig)?;
    let config = ImageConfig::parse(&read_document(&mut blobs, &config)?)?;
    let host = Platform::host();
    if config.platform != host {
        return Err(OciError::Platform { wanted: host.shown(), offered: config.platform.shown() }.into());
    }
    let budget = Budget::new(Limits { bytes: MAX_BYTES, entries: MAX_ENTRIES, names: MAX_NAMES });
    let tree = Tree::new(Meta::root(0o755));
    let mut builder = ImageBuilder { tree, spool: Spool::of(spool), budget, latest: None, devices: Devices::None };
    load_layers(&mut blobs, &manifest.layers, &mut builder, &mut |_| ())?;
    let mut tree = builder.tree;
    let user = User::find(&tree, config.user())?;
    let run = config.run(user.home.clone())?;
    tree.map_meta(|kind, meta| user.mode_for_all(kind, meta));
    add_places(&mut tree, &run)?;
    Ok(tree)
}

/// Puts a directory or file wherever the jail mounts something, and the image's word beside them.
fn add_places(tree: &mut Tree, run: &ImageRun) -> Result<(), WorkloadImageError> {
    let put = |tree: &mut Tree, path: &str, mode, kind| {
        tree.put(path, Meta::root(mode), kind)
            .map_err(|error| WorkloadImageError::Place { path: path.to_owned(), source: error.into() })
    };
    // Whatever an image has there is not its own to have.
    remove(tree, ".nex");
    remove(tree, "dev");
    for path in IMAGE_DIRECTORIES {
        if !matches!(tree.get(path), Some((_, Kind::Directory))) {
            remove(tree, path);
            put(tree, path, 0o555, Kind::Directory)?;
        }
    }
    for path in IMAGE_FILES {
        if !matches!(tree.get(path), Some((_, Kind::File(_)))) {
            remove(tree, path);
            put(tree, path, 0o444, Kind::File(Source::Bytes([].into())))?;
        }
    }
    let text = serde_json::to_vec(run).unwrap_or_default();
    put(tree, RUN_FILE, 0o444, Kind::File(Source::Bytes(text.into())))?;
    let place = |source: LayerError| WorkloadImageError::Place { path: run.directory.clone(), source };
    let directory = layer::resolve(tree, run.directory.as_bytes()).map_err(place)?;
    if tree.get(&directory).is_none() && !directory.is_empty() {
        tree.put(&directory, Meta::root(0o777), Kind::Directory).map_err(|error: TreeError| place(error.into()))?;
    }
    Ok(())
}

fn remove(tree: &mut Tree, path: &str) {
    // That it was not there is fine, and the paths are valid.
    drop(tree.remove(path));
}

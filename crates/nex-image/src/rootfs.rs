//! Builds root images: the content of a base, the agent as `/nex-agent`, and the directories and devices that the agent needs as the
//! init of a guest. Needs neither root nor a container engine; the same input gives the same bytes.
//!
//! The image's UUID identifies its agent, so that a node can check it without mounting: see [`agent_id`].

use std::path::{Path, PathBuf};

use nex_erofs::{Kind, Meta, Options, Source, Tree, TreeError, WriteError};
use object::LittleEndian;
use object::elf::PT_INTERP;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::base::{Base, BaseError, LoadedBase};
use crate::file::{FileError, hex, prepare, put, sha256};
use crate::progress::{Progress, Report};

/// Path of the agent in a guest, and the kernel's `init=`.
pub const AGENT: &str = "/nex-agent";
/// Directories of every image with their modes: mount points, and what programs expect.
const DIRECTORIES: [(&str, u16); 12] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("var", 0o755),
    ("root", 0o700),
    ("artifact", 0o755),
    ("out", 0o755),
    ("work", 0o755),
    ("mnt", 0o755),
];

/// The image to build.
#[derive(Debug)]
pub struct RootfsSpec {
    /// Content besides the agent.
    pub base: Base,
    /// The agent, a static executable.
    pub agent: PathBuf,
    /// Volume label: name and version, at most 16 bytes.
    pub label: String,
    /// Modification time of generated entries, in seconds since 1970 (default 0). If given, later times of others are clamped to it.
    pub mtime: Option<u64>,
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base cannot be loaded.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The agent cannot be read, or the image not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The agent does not run in a guest.
    #[error(
        "{0} cannot run in guests: it is not a static ELF file for x86_64; next: name the nex-agent that came with this nex with --agent"
    )]
    Agent(PathBuf),
    /// An entry cannot be added.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The image cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The image would contain itself.
    #[error("{out} lies in {base}, the directory it is built from; next: write it somewhere else")]
    OutputInsideBase {
        /// The image.
        out: PathBuf,
        /// The directory.
        base: PathBuf,
    },
}

/// The image built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Size of the image, in bytes.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
    /// SHA-256 of the image, in hex.
    pub sha256: String,
    /// Digest of the OCI image it was built from; a reference with it names exactly this image.
    pub base_digest: Option<String>,
}

/// UUID of images with this agent: the first bytes of its SHA-256.
///
/// # Errors
/// The agent cannot be read.
pub fn agent_id(agent: &Path) -> Result<[u8; 16], FileError> {
    let digest = sha256(agent)?;
    Ok(digest.first_chunk().copied().unwrap_or_default())
}

/// Builds an image and moves it to `out` when it is complete, replacing an existing file.
///
/// # Errors
/// The base or the agent cannot be read or is invalid, or the image cannot be written.
pub fn build(spec: &RootfsSpec, out: &Path, report: &mut Report<'_>) -> Result<Built, BuildError> {
    if !is_static_program(&spec.agent)? {
        return Err(BuildError::Agent(spec.agent.clone()));
    }
    if let Base::Dir(dir) = &spec.base
        && is_inside(out, dir)
    {
        return Err(BuildError::OutputInsideBase { out: out.to_owned(), base: dir.clone() });
    }
    let mut file = prepare(out)?;
    let LoadedBase { mut tree, digest } = spec.base.load(spec.mtime, out, report)?;
    add_defaults(&mut tree, spec)?;
    let mut label = [0; 16];
    spec.label.bytes().take(16).zip(&mut label).for_each(|(byte, place)| *place = byte);
    report(Progress::Begin { what: "Writing the image", bytes: None });
    let options = Options { mtime: spec.mtime.unwrap_or_default(), uuid: agent_id(&spec.agent)?, label };
    let written = tree.write(file.as_file_mut(), &options)?;
    let digest_of_image = hex(&sha256(file.path())?);
    put(file, out, 0o644)?;
    Ok(Built { bytes: written.bytes, entries: written.inodes, sha256: digest_of_image, base_digest: digest })
}

/// Adds what every guest needs.
fn add_defaults(tree: &mut Tree, spec: &RootfsSpec) -> Result<(), TreeError> {
    let meta = |mode| Meta { mtime: spec.mtime.unwrap_or_default(), ..Meta::root(mode) };
    for (path, mode) in DIRECTORIES {
        if !matches!(tree.get(path), Some((_, Kind::Directory))) {
            tree.put(path, meta(mode), Kind::Directory)?;
        }
    }
    // The kernel opens /dev/console for init before anything is mounted.
    tree.put("dev/console", meta(0o600), Kind::CharDevice { major: 5, minor: 1 })?;
    tree.put("dev/null", meta(0o666), Kind::CharDevice { major: 1, minor: 3 })?;
    tree.put(AGENT, meta(0o555), Kind::File(Source::Path(spec.agent.clone())))
}

/// Whether a file is an ELF program for x86_64 without a program interpreter: nothing else runs in an empty root.
fn is_static_program(path: &Path) -> Result<bool, FileError> {
    use std::io::Read as _;
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(FileError::reading(path))?;
    file.take(1 << 16).read_to_end(&mut head).map_err(FileError::reading(path))?;
    let Some(header) = crate::kernel::elf_header(&head) else { return Ok(false) };
    let segments = header.program_headers(LittleEndian, head.as_slice()).unwrap_or_default();
    Ok(!segments.is_empty() && segments.iter().all(|segment| segment.p_type(LittleEndian) != PT_INTERP))
}

fn is_inside(out: &Path, dir: &Path) -> bool {
    // The image's directory may not exist yet: check its nearest existing ancestor.
    let absolute = std::path::absolute(out).unwrap_or_default();
    let above = absolute.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    matches!((above, dir.canonicalize()), (Some(above), Ok(dir)) if above.starts_with(&dir))
}

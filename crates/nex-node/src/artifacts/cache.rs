//! The artifact cache: files named by their digest, filled from NATS object stores, never through memory.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nex_process::{Deadline, Elapsed};
use nex_protocol::digest::{Digest, Hasher};
use tokio::io::AsyncReadExt as _;

use super::draft::{DRAFT, Draft};
use super::error::{Defect, FetchError};
use super::remote::RemoteArtifact;
use crate::state_dir::make_private;

/// Places remembered of one artifact.
const MAX_SOURCES: usize = 64;

/// An artifact that lies in the cache, its digest verified when it was put there.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Artifacts {
    dir: PathBuf,
}

impl Artifacts {
    /// A cache in a directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Removes downloads that a killed process left half done.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// The artifact, from the cache if its digest is there and was fetched from this very place before, else fetched. Stops at the
    /// promised size.
    ///
    /// A place is believed only what it has once delivered: otherwise a digest alone would run another tenant's artifact, and a wrong
    /// size evade the limits.
    ///
    /// # Errors
    /// A [`FetchError`] for anything that goes wrong on the way, or when the bytes are not what the store promised.
    pub async fn take(&self, offer: RemoteArtifact, by: Deadline) -> Result<Artifact, FetchError> {
        if let Some(digest) = offer.digest()
            && let Some(artifact) = self.cached(&digest).filter(|artifact| artifact.bytes == offer.bytes())
            && self.has_source(&digest, &offer.source())
        {
            // Its age decides what goes when the cache is full; failing to note its use costs only a later download.
            fs::File::open(&artifact.path).and_then(|file| file.set_modified(SystemTime::now())).ok();
            return Ok(artifact);
        }
        let location = offer.location.clone();
        let fetched = by.bound(Box::pin(self.fetch(offer))).await;
        fetched.map_err(|Elapsed| FetchError::at("fetching", &location, Defect::Late))?
    }

    /// An artifact that was cached earlier.
    #[must_use]
    pub fn cached(&self, digest: &Digest) -> Option<Artifact> {
        let path = self.dir.join(digest.to_string());
        let bytes = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        Some(Artifact { path, digest: *digest, bytes })
    }

    /// Where an artifact is, or will be once it is fetched again.
    #[must_use]
    pub fn place(&self, digest: &Digest) -> Artifact {
        let missing = || Artifact { path: self.dir.join(digest.to_string()), digest: *digest, bytes: 0 };
        self.cached(digest).unwrap_or_else(missing)
    }

    /// Removes what was used longest ago until the cache is within its bound; never what is in use.
    pub fn prune(&self, most_bytes: u64, in_use: &HashSet<Digest>) {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (name, Ok(found)) = (entry.file_name(), entry.metadata()) else { continue };
            let name = name.to_string_lossy();
            let digest = name.split('.').next().and_then(|digest| digest.parse::<Digest>().ok());
            if let Some(digest) = digest {
                files.push((found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len(), digest, entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _, _)| bytes).sum();
        for (_, bytes, digest, path) in files {
            if total <= most_bytes {
                return;
            }
            if !in_use.contains(&digest) && fs::remove_file(&path).is_ok() {
                total = total.saturating_sub(bytes);
                tracing::debug!(%digest, bytes, "removed from the artifact cache");
            }
        }
    }

    /// What was compiled from an artifact earlier by an agent of this very build.
    #[must_use]
    pub fn compiled(&self, digest: &Digest) -> Option<Compiled> {
        let path = self.compiled_path(digest);
        let digest = fs::read_to_string(with_digest(&path)).ok()?.trim().parse().ok()?;
        path.is_file().then_some(Compiled { path, digest })
    }

    /// A file to compile into.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn draft(&self) -> io::Result<Draft> {
        Draft::new(&self.dir)
    }

    /// Keeps what was compiled, with its digest beside it. Blocks: it is read once.
    ///
    /// # Errors
    /// Those of the file system, and when nothing was compiled.
    pub fn keep_compiled(&self, digest: &Digest, mut draft: Draft) -> io::Result<()> {
        let (compiled, bytes) = Digest::read(fs::File::open(&draft.path)?)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let path = self.compiled_path(digest);
        // The digest first: without it the file counts for nothing, and with the one of an older file it is refused.
        let mut beside = Draft::new(&self.dir)?;
        writeln!(beside.file, "{compiled}")?;
        beside.keep(&with_digest(&path))?;
        draft.keep(&path)
    }

    /// The root of an image that was built earlier by an agent of this very build.
    #[must_use]
    pub fn image_root(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.image_root_path(digest);
        // Its age decides what goes when the cache is full.
        fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok()?;
        Some(path)
    }

    /// Keeps the root of an image. Blocks until the disk has it.
    ///
    /// # Errors
    /// Those of the file system, and when nothing was built.
    pub fn keep_image_root(&self, digest: &Digest, mut draft: Draft) -> io::Result<PathBuf> {
        if fs::metadata(&draft.path)?.len() == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let path = self.image_root_path(digest);
        draft.keep(&path)?;
        Ok(path)
    }

    fn image_root_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.{}.erofs", env!("CARGO_PKG_VERSION")))
    }

    fn compiled_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.{}.cwasm", env!("CARGO_PKG_VERSION")))
    }

    fn has_source(&self, digest: &Digest, source: &Digest) -> bool {
        let text = fs::read_to_string(self.sources_path(digest)).unwrap_or_default();
        text.lines().any(|line| line.parse() == Ok(*source))
    }

    /// Failing at this costs only a later download.
    fn add_source(&self, digest: &Digest, source: &Digest) {
        let known = fs::read_to_string(self.sources_path(digest)).unwrap_or_default();
        let forgotten = known.lines().count().saturating_sub(MAX_SOURCES - 1);
        let kept: String = known.lines().skip(forgotten).map(|line| format!("{line}\n")).collect();
        fs::write(self.sources_path(digest), format!("{kept}{source}\n")).ok();
    }

    fn sources_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.sources"))
    }

    async fn fetch(&self, offer: RemoteArtifact) -> Result<Artifact, FetchError> {
        let (location, promised, size, source) = (offer.location.clone(), offer.digest(), offer.bytes(), offer.source());
        let wrong = |doing, defect: Defect| FetchError::at(doing, &location, defect);
        let keeping = |error: io::Error| wrong("keeping", error.into());
        make_private(&self.dir).map_err(|error| wrong("keeping", error.into()))?;
        let mut draft = Draft::new(&self.dir).map_err(keeping)?;
        let mut object = offer.read().await.map_err(|e| wrong("fetching", e.into()))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 * 1024];
        let mut total: u64 = 0;
        loop {
            let count = object.read(&mut buffer).await.map_err(|e| wrong("fetching", e.into()))?;
            if count == 0 {
                break;
            }
            total = total.saturating_add(count as u64);
            if total > size {
                return Err(wrong("fetching", Defect::TooLarge(size)));
            }
            let piece = buffer.get(..count).unwrap_or_default();
            hasher.update(piece);
            draft.file.write_all(piece).map_err(keeping)?;
        }
        let (digest, bytes) = hasher.finish();
        if promised.is_some_and(|promised| promised != digest) {
            return Err(wrong("fetching", Defect::Digest(digest)));
        }
        let path = self.dir.join(digest.to_string());
        draft.keep(&path).map_err(keeping)?;
        self.add_source(&digest, &source);
        Ok(Artifact { path, digest, bytes })
    }
}

/// The file in which the digest of another is kept.
fn with_digest(path: &Path) -> PathBuf {
    path.with_added_extension("sha256")
}

/// Machine code in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of that file.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_compiled_is_kept_with_its_digest_and_nothing_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Artifacts::new(dir.path().to_owned());
        let artifact = Digest::of(b"artifact");
        assert!(cache.keep_compiled(&artifact, cache.draft().unwrap()).is_err());
        assert_eq!(cache.compiled(&artifact), None);
        let draft = cache.draft().unwrap();
        draft.file().unwrap().write_all(b"code").unwrap();
        cache.keep_compiled(&artifact, draft).unwrap();
        let compiled = cache.compiled(&artifact).unwrap();
        assert_eq!((compiled.digest, fs::read(&compiled.path).unwrap()), (Digest::of(b"code"), b"code".to_vec()));
        fs::remove_file(with_digest(&compiled.path)).unwrap();
        assert_eq!(cache.compiled(&artifact), None, "without a digest it is nobody's");
    }

    #[test]
    fn a_place_is_known_for_what_it_delivered_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Artifacts::new(dir.path().to_owned());
        let (artifact, here, there) = (Digest::of(b"artifact"), Digest::of(b"here"), Digest::of(b"there"));
        assert!(!cache.has_source(&artifact, &here));
        cache.add_source(&artifact, &here);
        assert!(cache.has_source(&artifact, &here) && !cache.has_source(&artifact, &there));
        for place in 0..MAX_SOURCES {
            cache.add_source(&artifact, &Digest::of(&place.to_be_bytes()));
        }
        assert!(!cache.has_source(&artifact, &here), "the oldest is forgotten");
        assert_eq!(fs::read_to_string(cache.sources_path(&artifact)).unwrap().split_whitespace().count(), MAX_SOURCES);
    }

    #[test]
    fn a_full_cache_loses_what_was_used_longest_ago_but_nothing_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Artifacts::new(dir.path().to_owned());
        let digests: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n])).collect();
        for (age, digest) in (0..).zip(&digests) {
            let file = fs::File::create(dir.path().join(digest.to_string())).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age)).unwrap();
        }
        fs::write(dir.path().join("other"), b"not ours").unwrap();
        cache.prune(200, &HashSet::from([digests[0]]));
        let kept: Vec<bool> = digests.iter().map(|digest| cache.cached(digest).is_some()).collect();
        assert_eq!(kept, [true, false, false, true]);
        assert!(dir.path().join("other").exists());
    }
}

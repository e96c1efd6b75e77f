//! Pulled images, each packed into a file that is named by its digest, so that the same one is pulled once. The least recently used go
//! when there are too many bytes of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nex_image::oci::{Digest, Platform};
use tempfile::{Builder, NamedTempFile};

use crate::env::Env;

/// Most bytes of all images together.
const MAX_BYTES: u64 = 8 << 30;
/// What was used so recently may be in use, and stays; a draft this old belongs to nobody.
const RECENT: Duration = Duration::from_secs(60 * 60);
const DRAFT: &str = "draft-";

/// A pulled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PulledImage {
    /// The archive that it was packed into.
    pub(crate) path: PathBuf,
    /// Architectures that are in it.
    pub(crate) architectures: Vec<String>,
}

/// The directory of pulled images.
#[derive(Debug)]
pub(crate) struct ImageCache(PathBuf);

impl ImageCache {
    /// Opens it; it is made if need be.
    pub(crate) fn open(env: &Env) -> anyhow::Result<Self> {
        let cache = env.cache.as_ref().context("there is no directory to pull images into; next: set HOME or XDG_CACHE_HOME")?;
        Self::at(cache.join("images"))
    }

    fn at(directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
        Ok(Self(directory))
    }

    /// An image that was pulled for these platforms.
    pub(crate) fn find(&self, digest: &Digest, wanted: &[Platform]) -> Option<PulledImage> {
        let start = format!("{}.{}.", digest.hex(), names(wanted));
        let found = self.files().find_map(|path| {
            let packed = path.file_name()?.to_str()?.strip_prefix(&start)?.strip_suffix(".tar")?;
            let architectures = packed.split('+').map(str::to_owned).collect();
            Some(PulledImage { architectures, path })
        })?;
        // That it is used now is only for the choice of what goes.
        drop(File::options().write(true).open(&found.path).and_then(|file| file.set_modified(SystemTime::now())));
        Some(found)
    }

    /// A file to pack an image into.
    pub(crate) fn draft(&self) -> anyhow::Result<NamedTempFile> {
        Builder::new().prefix(DRAFT).tempfile_in(&self.0).with_context(|| format!("cannot make a file in {}", self.0.display()))
    }

    /// Keeps what was packed.
    pub(crate) fn keep(
        &self,
        draft: NamedTempFile,
        digest: &Digest,
        wanted: &[Platform],
        packed: &[Platform],
    ) -> anyhow::Result<PulledImage> {
        let path = self.0.join(format!("{}.{}.{}.tar", digest.hex(), names(wanted), names(packed)));
        draft.as_file().sync_all().context("cannot write the pulled image to the disk")?;
        draft.persist(&path).with_context(|| format!("cannot keep the pulled image in {}", self.0.display()))?;
        self.trim(MAX_BYTES);
        Ok(PulledImage { path, architectures: architectures(packed) })
    }

    /// Removes what was used longest ago until the rest has no more than these bytes.
    fn trim(&self, bytes: u64) {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = self
            .files()
            .filter_map(|path| {
                let meta = path.metadata().ok()?;
                Some((meta.modified().ok()?, meta.len(), path))
            })
            .collect();
        files.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let (now, mut total) = (SystemTime::now(), 0_u64);
        for (used, len, path) in files {
            let is_recent = now.duration_since(used).is_ok_and(|age| age < RECENT);
            let is_draft = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DRAFT.as_bytes()));
            if !is_recent && (is_draft || total.saturating_add(len) > bytes) {
                // Another nex may have removed it.
                drop(fs::remove_file(path));
            } else {
                total = total.saturating_add(len);
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| Path::is_file(path))
    }
}

fn architectures(platforms: &[Platform]) -> Vec<String> {
    let mut names: Vec<String> = platforms.iter().map(|platform| platform.architecture.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// Platforms as a part of a file's name; what an image claims to be for may be any text.
fn names(platforms: &[Platform]) -> String {
    let plain = |name: String| name.chars().filter(char::is_ascii_alphanumeric).take(20).collect::<String>();
    architectures(platforms).into_iter().map(plain).collect::<Vec<_>>().join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: &str) -> Digest {
        format!("sha256:{}", digit.repeat(64)).try_into().unwrap()
    }

    fn platform(architecture: &str) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into() }
    }

    #[test]
    fn an_image_is_found_by_what_it_was_pulled_for_and_the_oldest_go() {
        let home = tempfile::tempdir().unwrap();
        let cache = ImageCache::at(home.path().join("images")).unwrap();
        let (both, one) = ([platform("arm64"), platform("amd64")], [platform("amd64")]);
        let kept = cache.keep(cache.draft().unwrap(), &digest("a"), &both, &one).unwrap();
        assert_eq!(cache.find(&digest("a"), &both), Some(kept.clone()));
        assert_eq!(kept.architectures, ["amd64"]);
        assert_eq!(cache.find(&digest("a"), &one), None);
        assert_eq!(cache.find(&digest("b"), &both), None);
        let old = |path: &Path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - 2 * RECENT).unwrap();
        };
        let other = cache.keep(cache.draft().unwrap(), &digest("b"), &one, &one).unwrap();
        old(&kept.path);
        old(&other.path);
        let left = cache.draft().unwrap().keep().unwrap().1;
        old(&left);
        assert!(cache.find(&digest("b"), &one).is_some(), "it is used, and thereby young");
        cache.trim(250);
        assert!(kept.path.exists() && other.path.exists() && !left.exists());
        cache.trim(150);
        assert!(!kept.path.exists() && other.path.exists());
    }

    #[test]
    fn what_an_image_claims_to_be_for_is_no_path() {
        let home = tempfile::tempdir().unwrap();
        let cache = ImageCache::at(home.path().to_owned()).unwrap();
        let kept = cache.keep(cache.draft().unwrap(), &digest("a"), &[], &[platform("../../x")]).unwrap();
        assert_eq!(kept.path.parent(), Some(home.path()));
    }
}

//! Remembers monitors whose guests did not boot on this host, so that a restarted node does not wait for them again.
//!
//! Only boot timeouts are cached, not errors that an operator can fix. An entry holds for the same programs and images, until the host
//! reboots, and for at most an hour, because a host may only have been busy.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::candidate::Candidate;

/// How long an entry is valid.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The cache: a file in the state directory.
#[derive(Debug)]
pub(super) struct ProbeCache {
    path: PathBuf,
    silent: BTreeMap<String, String>,
}

impl ProbeCache {
    /// Loads the entries that are still valid.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("silent-monitors.json");
        let age = fs::metadata(&path).ok().and_then(|found| found.modified().ok()?.elapsed().ok());
        let text = age.filter(|age| *age < MAX_AGE).and_then(|_young| fs::read(&path).ok());
        let silent = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, silent }
    }

    /// Why this candidate is not tried.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        let why = self.silent.get(key)?;
        Some(format!("{why} (seen within the last hour; remove {} to have it tried again)", self.path.display()))
    }

    /// Records that a candidate's guest did not boot. A write error only costs time at the next start.
    pub(super) fn insert(&mut self, key: String, why: String) {
        self.silent.insert(key, why);
        let written = serde_json::to_vec(&self.silent).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|text| fs::write(&self.path, text)) {
            tracing::debug!(%error, "could not cache that a monitor does not work");
        }
    }
}

/// The key of a candidate: it changes with everything that makes another try worthwhile.
pub(super) fn key(candidate: &Candidate, files: &[&Path]) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = |path: &Path| fs::metadata(path).map_or((0, 0, 0), |found| (found.len(), found.mtime(), found.mtime_nsec()));
    let files: Vec<_> = files.iter().copied().chain([candidate.binary.as_path()]).map(file).collect();
    format!("{} {candidate} {:?} {files:?}", boot.trim(), candidate.jailer)
}

#[cfg(test)]
mod tests {
    use nex_vmm::VmmKind;

    use super::*;
    use crate::sandbox::candidate::Accel;

    #[test]
    fn a_monitor_without_guests_is_known_to_the_next_start_until_a_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, binary) = (dir.path().join("vmlinux"), dir.path().join("qemu"));
        fs::write(&kernel, "1").unwrap();
        fs::write(&binary, "1").unwrap();
        let candidate = Candidate { kind: VmmKind::Qemu, accel: Accel::Kvm, binary, jailer: None };
        let known = || ProbeCache::load(dir.path()).get(&key(&candidate, &[&kernel]));
        assert_eq!(known(), None);
        ProbeCache::load(dir.path()).insert(key(&candidate, &[&kernel]), "it is silent".to_owned());
        assert!(known().is_some_and(|why| why.starts_with("it is silent (seen within the last hour; remove ")));
        fs::write(&kernel, "22").unwrap();
        assert_eq!(known(), None);
        fs::write(dir.path().join("silent-monitors.json"), "{").unwrap();
        assert_eq!(known(), None);
    }
}

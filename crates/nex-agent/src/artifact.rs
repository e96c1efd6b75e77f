//! The artifact is what its deployer signed, or it is not run.

use std::fs::File;
use std::path::{Path, PathBuf};

use nex_protocol::digest::Digest;

/// Longest path accepted from the node.
const PATH_BYTES: usize = 4_096;

/// Reads a file whole and compares its digest; off the async threads, for it may be large.
///
/// # Errors
/// A text that says what is wrong with it.
pub(crate) async fn verify(path: &str, expected: Digest) -> Result<PathBuf, String> {
    if path.len() > PATH_BYTES {
        return Err("the artifact's path is too long".to_owned());
    }
    let path = PathBuf::from(path);
    let checked = tokio::task::spawn_blocking(move || check(&path, expected).map(|()| path));
    checked.await.map_err(|error| format!("the artifact could not be checked: {error}"))?
}

fn check(path: &Path, expected: Digest) -> Result<(), String> {
    let unreadable = |error| format!("Failed to get and write workload artifact to temp dir: {}: {error}", path.display());
    let (actual, bytes) = Digest::read(File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    match actual == expected {
        true if bytes > 0 => Ok(()),
        true => Err("total bytes is required: the artifact is empty".to_owned()),
        false => Err(format!("the artifact's SHA-256 is {actual}, not {expected} as deployed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_or_missing_artifact_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"hello").unwrap();
        let path = path.to_str().unwrap();
        assert!(verify(path, Digest::of(b"hello")).await.is_ok());
        assert!(verify(path, Digest::of(b"other")).await.unwrap_err().contains("SHA-256"));
        assert!(verify("/nowhere", Digest::of(b"")).await.is_err());
    }
}

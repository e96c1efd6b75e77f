//! The artifact is what its deployer signed, or it is not run.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nex_protocol::digest::Digest;

/// Longest path accepted from the node.
const MAX_PATH: usize = 4_096;

/// Why an artifact is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    /// The node named it in a way no node does.
    #[error("the artifact's path is longer than {MAX_PATH} bytes")]
    Path,
    /// It is not there, or cannot be read.
    #[error("Failed to get and write workload artifact to temp dir: {path}", path = path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("total bytes is required: the artifact is empty")]
    Empty,
    /// It is another file.
    #[error("the artifact's SHA-256 is {actual}, not {expected} as deployed; next: deploy it again")]
    Changed {
        /// What was found.
        actual: Digest,
        /// What was signed.
        expected: Digest,
    },
    /// The check itself failed.
    #[error("the artifact could not be checked")]
    Check(#[source] tokio::task::JoinError),
}

/// Reads a file whole and compares its digest; off the async threads, for it may be large.
pub(crate) async fn verify(path: &str, expected: Digest) -> Result<PathBuf, ArtifactError> {
    if path.len() > MAX_PATH {
        return Err(ArtifactError::Path);
    }
    let path = PathBuf::from(path);
    tokio::task::spawn_blocking(move || check(&path, expected).map(|()| path)).await.map_err(ArtifactError::Check)?
}

fn check(path: &Path, expected: Digest) -> Result<(), ArtifactError> {
    let unreadable = |source| ArtifactError::Unreadable { path: path.to_owned(), source };
    let (actual, bytes) = Digest::read(File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    match actual == expected {
        true if bytes > 0 => Ok(()),
        true => Err(ArtifactError::Empty),
        false => Err(ArtifactError::Changed { actual, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_an_empty_and_a_missing_artifact_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"hello").unwrap();
        let path = path.to_str().unwrap();
        assert!(verify(path, Digest::of(b"hello")).await.is_ok());
        assert!(matches!(verify(path, Digest::of(b"other")).await, Err(ArtifactError::Changed { .. })));
        assert!(matches!(verify("/nowhere", Digest::of(b"")).await, Err(ArtifactError::Unreadable { .. })));
        std::fs::write(path, b"").unwrap();
        assert!(matches!(verify(path, Digest::of(b"")).await, Err(ArtifactError::Empty)));
    }
}

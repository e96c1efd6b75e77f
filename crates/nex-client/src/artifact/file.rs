//! A local file and what it is known by.

use std::path::PathBuf;

use nex_protocol::digest::Digest;

use super::error::ArtifactError;

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
}

impl LocalFile {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// [`ArtifactError::File`]
    pub async fn read(path: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        let path = path.into();
        let (file, failed) = (path.clone(), |source| ArtifactError::File { path: path.clone(), source });
        let read = tokio::task::spawn_blocking(move || Digest::read(std::fs::File::open(file)?)).await;
        let (digest, bytes) = read.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
        Ok(Self { path, digest, bytes })
    }
}

//! Downloads from a package's public address or a mirror, bounded and verified before use.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::Package;
use crate::file::hex;
use crate::http::agent;
use crate::progress::{Progress, ProgressReader, Report};

/// Where packages come from instead of their public addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// A URL, to which the file name is appended.
    Url(String),
    /// A directory with the files.
    Dir(PathBuf),
}

impl Mirror {
    /// Parses a URL, or else a directory.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.starts_with("https://") || text.starts_with("http://") {
            Self::Url(text.trim_end_matches('/').to_owned())
        } else {
            Self::Dir(text.into())
        }
    }
}

/// Why a package cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The download failed.
    #[error("cannot download {url}; next: check the network, or name a mirror, or a directory with the file, with --mirror")]
    Download {
        /// Its address.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The file cannot be copied from the mirror or to the temporary file.
    #[error("cannot copy {path}; next: put the file there, or name another mirror with --mirror")]
    Copy {
        /// Its path or URL.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file exceeds its limit.
    #[error("{file} has more than {limit} bytes, which cannot be the right file; next: use another mirror")]
    TooLarge {
        /// Its name.
        file: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The digest differs from the pinned one.
    #[error("{file} has the SHA-256 {actual}, not {expected}: it was not used; next: use another mirror, or none")]
    Digest {
        /// Its name.
        file: &'static str,
        /// The pinned digest.
        expected: &'static str,
        /// The actual digest.
        actual: String,
    },
}

/// Fetches a package into an unnamed file, verified and rewound.
///
/// # Errors
/// The package cannot be fetched or does not match its digest.
pub fn fetch(package: &Package, mirror: Option<&Mirror>, report: &mut Report<'_>) -> Result<File, FetchError> {
    let url = match mirror {
        Some(Mirror::Dir(dir)) => return from_dir(package, dir, report),
        Some(Mirror::Url(base)) => format!("{base}/{}", package.file),
        None => package.url.to_owned(),
    };
    // Plain HTTP only if the operator wrote http://; the digest is pinned anyway.
    let failed = |source| FetchError::Download { url: url.clone(), source: Box::new(source) };
    let response = agent(url.starts_with("https://")).get(&url).call().map_err(failed)?;
    let len = response.headers().get("content-length").and_then(|len| len.to_str().ok()?.parse().ok());
    report(Progress::Begin { what: package.name, bytes: len });
    copy_verified(package, response.into_body().into_reader(), &url, report)
}

fn from_dir(package: &Package, dir: &Path, report: &mut Report<'_>) -> Result<File, FetchError> {
    let path = dir.join(package.file);
    let shown = path.display().to_string();
    let failed = |source| FetchError::Copy { path: shown.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    report(Progress::Begin { what: package.name, bytes: file.metadata().ok().map(|meta| meta.len()) });
    copy_verified(package, file, &shown, report)
}

fn copy_verified(package: &Package, from: impl Read, shown: &str, report: &mut Report<'_>) -> Result<File, FetchError> {
    let failed = |source| FetchError::Copy { path: shown.to_owned(), source };
    let mut reader = ProgressReader { inner: from.take(package.max_bytes + 1), report };
    let mut file = tempfile::tempfile().map_err(failed)?;
    let (mut hasher, mut buffer, mut total) = (Sha256::new(), vec![0; 1 << 16], 0_u64);
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        total += part.len() as u64;
        hasher.update(part);
        file.write_all(part).map_err(failed)?;
    }
    if total > package.max_bytes {
        return Err(FetchError::TooLarge { file: package.file, limit: package.max_bytes });
    }
    let actual = hex(&hasher.finalize());
    if actual != package.sha256 {
        return Err(FetchError::Digest { file: package.file, expected: package.sha256, actual });
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

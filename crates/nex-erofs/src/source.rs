//! Sources of file contents.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::WriteError;

/// Where a file's content comes from when the image is written.
#[derive(Debug, Clone)]
pub enum Source {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A file; its length is taken when the image is laid out. Symbolic links are followed.
    Path(PathBuf),
    /// Part of an open file.
    Span {
        /// The file.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Source {
    /// All of it, if it has at most that many bytes.
    ///
    /// # Errors
    /// It cannot be read, or changed meanwhile.
    pub fn contents(&self, most: u64) -> Result<Option<Vec<u8>>, WriteError> {
        let len = self.len()?;
        if len > most { Ok(None) } else { self.read(len).map(Some) }
    }

    /// Current length, in bytes.
    pub(crate) fn len(&self) -> Result<u64, WriteError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Span { len, .. } => Ok(*len),
            Self::Path(path) => {
                let failed = |source: io::Error| WriteError::Source { path: path.clone(), source };
                let meta = std::fs::metadata(path).map_err(failed)?;
                if meta.is_file() { Ok(meta.len()) } else { Err(failed(io::Error::other("not a regular file"))) }
            }
        }
    }

    /// Reads all of it, for an inline tail.
    pub(crate) fn read(&self, len: u64) -> Result<Vec<u8>, WriteError> {
        let mut bytes = Vec::new();
        match self {
            Self::Bytes(all) => bytes.extend_from_slice(all),
            Self::Path(path) => {
                let read = File::open(path).and_then(|file| file.take(len).read_to_end(&mut bytes));
                read.map_err(|source| WriteError::Source { path: path.clone(), source })?;
            }
            Self::Span { file, offset, .. } => {
                let mut file: &File = file;
                let read = file.seek(SeekFrom::Start(*offset)).and_then(|_| file.take(len).read_to_end(&mut bytes));
                read.map_err(WriteError::Image)?;
            }
        }
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(WriteError::Shrunk { expected: len }) }
    }

    /// Copies all of it to the current position of `out`. Between files `std::io::copy` uses the kernel's copy, which shares blocks
    /// where the file system can.
    pub(crate) fn copy(&self, len: u64, out: &mut File) -> Result<(), WriteError> {
        let copied = match self {
            Self::Bytes(bytes) => out.write_all(bytes).map(|()| len).map_err(WriteError::Image)?,
            Self::Path(path) => {
                let file = File::open(path).map_err(|source| WriteError::Source { path: path.clone(), source })?;
                io::copy(&mut file.take(len), out).map_err(WriteError::Image)?
            }
            Self::Span { file, offset, .. } => {
                let mut file: &File = file;
                let copy = |_| io::copy(&mut file.take(len), out);
                file.seek(SeekFrom::Start(*offset)).and_then(copy).map_err(WriteError::Image)?
            }
        };
        if copied == len { Ok(()) } else { Err(WriteError::Shrunk { expected: len }) }
    }
}

//! Spools contents of archives to an unnamed file, and bounds what archives may use.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;
use std::sync::Arc;

use nex_erofs::Source;

use super::layer::LayerError;
use crate::file::FileError;

/// Most bytes unpacked from the archives of an image.
const MAX_BYTES: u64 = 64 << 30;
/// Most entries of an image, all layers together.
const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes of names and link targets, which are held in memory.
const MAX_NAMES: u64 = 256 << 20;

/// What an image may still use. Charged before anything is unpacked; an archive that exceeds it is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) names: u64,
}

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    left: Limits,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits { bytes: MAX_BYTES, entries: MAX_ENTRIES, names: MAX_NAMES })
    }
}

impl Budget {
    /// All of it is left.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, left: limits }
    }

    /// Charges an entry of this many bytes.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        let too_much = |what, most| LayerError::TooMuch { what, most };
        self.left.bytes = self.left.bytes.checked_sub(bytes).ok_or_else(|| too_much("unpacked bytes", self.limits.bytes))?;
        self.left.entries =
            self.left.entries.checked_sub(1).ok_or_else(|| too_much("files and directories", self.limits.entries))?;
        Ok(())
    }

    /// Charges a name or link target of this many bytes.
    pub(crate) fn charge_name(&mut self, bytes: usize) -> Result<(), LayerError> {
        let too_much = || LayerError::TooMuch { what: "bytes of names", most: self.limits.names };
        self.left.names = self.left.names.checked_sub(bytes as u64).ok_or_else(too_much)?;
        Ok(())
    }
}

/// An unnamed file of contents.
#[derive(Debug)]
pub(crate) struct Spool {
    file: Arc<File>,
    len: u64,
}

impl Spool {
    /// Creates an empty spool on the file system of the image: it has the room, and can share blocks.
    pub(crate) fn create_beside(out: &Path) -> Result<Self, FileError> {
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::tempfile_in(parent).map_err(FileError::writing(parent))?;
        Ok(Self { file: Arc::new(file), len: 0 })
    }

    /// A spool in an empty file that is given.
    pub(crate) fn of(file: File) -> Self {
        Self { file: Arc::new(file), len: 0 }
    }

    /// Appends exactly this many bytes of a reader.
    pub(crate) fn append(&mut self, from: impl Read, len: u64) -> io::Result<Source> {
        let mut file: &File = &self.file;
        file.seek(io::SeekFrom::Start(self.len))?;
        let copied = io::copy(&mut from.take(len), &mut file)?;
        if copied != len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
        }
        let source = Source::Span { file: Arc::clone(&self.file), offset: self.len, len };
        self.len += len;
        Ok(source)
    }
}

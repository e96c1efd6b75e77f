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
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) names: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_BYTES, entries: MAX_ENTRIES, names: MAX_NAMES }
    }
}

impl Budget {
    /// Charges an entry of this many bytes.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        match (self.bytes.checked_sub(bytes), self.entries.checked_sub(1)) {
            (Some(bytes), Some(entries)) => {
                (self.bytes, self.entries) = (bytes, entries);
                Ok(())
            }
            _ => Err(LayerError::TooMuch),
        }
    }

    /// Charges a name or link target of this many bytes.
    pub(crate) fn charge_name(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.names = self.names.checked_sub(bytes as u64).ok_or(LayerError::TooMuch)?;
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

//! Writes a tree as an image: metadata from memory, contents copied by the kernel wherever they come from files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use crate::BLOCK;
use crate::directory;
use crate::format::{Inode, Super, overlay};
use crate::layout::{Layout, Place};
use crate::tree::{Kind, NodeId, Source, Tree};

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// More blocks than the format can count.
    #[error("the tree is larger than an image can be, which is 16 TiB")]
    TooLarge {
        /// Where counting ended.
        source: std::num::TryFromIntError,
    },
    /// A file that is to be in the image.
    #[error("cannot read {path}, which is to be in the image")]
    Source {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that became shorter.
    #[error(
        "a file became shorter than {expected} bytes while it was copied into the image; next: try again when nobody writes it"
    )]
    Shrunk {
        /// Its length when the image was laid out.
        expected: u64,
    },
    /// The image itself.
    #[error("cannot write the image; next: see that there is room for it")]
    Image(#[source] io::Error),
}

/// What an image says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// When it was made, in seconds since 1970.
    pub mtime: u64,
    /// Its id; zeros are as good as any.
    pub uuid: [u8; 16],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the image, a multiple of [`BLOCK`].
    pub bytes: u64,
    /// Files, directories and the rest.
    pub inodes: u64,
}

impl Tree {
    /// Writes the image into an empty file, from its start. The same tree gives the same bytes.
    ///
    /// # Errors
    /// A source cannot be read or became shorter, the image is too large or cannot be written. What is in the file then is no image.
    pub fn write(&self, out: &mut File, options: &Options) -> Result<Written, WriteError> {
        let layout = Layout::of(self)?;
        let inodes = layout.places.len() as u64;
        let bytes = u64::from(layout.blocks) * BLOCK;
        let mut meta = self.metadata(&layout)?;
        let root = u16::try_from(layout.number(NodeId::ROOT)).unwrap_or_default(); // the first inode, at 1152
        let block = meta.get_mut(..4096).unwrap_or_default();
        Super { root, inodes, blocks: layout.blocks, mtime: options.mtime, uuid: options.uuid }.seal(block);
        out.set_len(bytes).map_err(WriteError::Image)?;
        out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&meta)).map_err(WriteError::Image)?;
        for place in &layout.places {
            self.content(place, &layout, out)?;
        }
        out.flush().map_err(WriteError::Image)?;
        Ok(Written { bytes, inodes })
    }

    /// The blocks of inodes, with what lies behind them.
    fn metadata(&self, layout: &Layout) -> Result<Vec<u8>, WriteError> {
        let too_large = |source| WriteError::TooLarge { source };
        let mut meta = vec![0; usize::try_from(layout.meta_blocks * BLOCK).map_err(too_large)?];
        for place in &layout.places {
            let node = self.node(place.node);
            let inode = Inode {
                kind: &node.kind,
                meta: node.meta,
                size: place.size,
                links: place.links,
                inline: place.inline,
                block: place.block,
                number: u32::try_from(place.number()).unwrap_or(u32::MAX),
            };
            let mut bytes = inode.encode();
            if place.inline {
                bytes.extend(self.tail(place, layout)?);
            }
            overlay(&mut meta, usize::try_from(place.at).map_err(too_large)?, &bytes);
        }
        Ok(meta)
    }

    /// The part of a content that lies behind its inode.
    fn tail(&self, place: &Place, layout: &Layout) -> Result<Vec<u8>, WriteError> {
        let whole = match &self.node(place.node).kind {
            Kind::Directory => self.entries_of(place, layout),
            Kind::Symlink(target) => target.clone(),
            Kind::File(source) => source.read(place.size)?,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Socket => Vec::new(),
        };
        let begin = usize::try_from(place.in_blocks()).unwrap_or(usize::MAX);
        Ok(whole.get(begin..).unwrap_or_default().to_vec())
    }

    fn entries_of(&self, place: &Place, layout: &Layout) -> Vec<u8> {
        directory::encode(self, &directory::entries(self, place.node, place.parent), |id| layout.number(id))
    }

    /// Writes what has blocks of its own.
    fn content(&self, place: &Place, layout: &Layout, out: &mut File) -> Result<(), WriteError> {
        let len = place.in_blocks();
        if len == 0 {
            return Ok(());
        }
        out.seek(SeekFrom::Start(u64::from(place.block) * BLOCK)).map_err(WriteError::Image)?;
        let bytes = match &self.node(place.node).kind {
            Kind::File(source) => return source.copy(place.size, out),
            Kind::Directory => self.entries_of(place, layout),
            Kind::Symlink(target) => target.clone(),
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Socket => Vec::new(),
        };
        let end = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        out.write_all(bytes.get(..end).unwrap_or_default()).map_err(WriteError::Image)
    }
}

impl Source {
    /// All of it, for what lies behind an inode.
    fn read(&self, len: u64) -> Result<Vec<u8>, WriteError> {
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

    /// Copies all of it to where `out` stands: `std::io::copy` has the kernel do it between files, which share blocks where the file
    /// system can.
    fn copy(&self, len: u64, out: &mut File) -> Result<(), WriteError> {
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

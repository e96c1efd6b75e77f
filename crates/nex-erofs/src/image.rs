//! Writes a tree as an image: metadata from memory; the kernel copies the contents of files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::block::BLOCK;
use crate::directory;
use crate::error::WriteError;
use crate::format::{Inode, Options, SUPER, SUPER_AT, Super, overlay};
use crate::layout::{Layout, Place};
use crate::tree::{Kind, NodeId, Tree};

/// Reads the options of an image; `None` if the file is not an image or is shorter than its superblock says.
///
/// # Errors
/// The file cannot be read.
pub fn identify(path: &Path) -> io::Result<Option<Options>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(SUPER_AT as u64))?;
    let mut bytes = Vec::with_capacity(SUPER);
    file.take(SUPER as u64).read_to_end(&mut bytes)?;
    Ok(Super::parse(&bytes).filter(|found| u64::from(found.blocks) * BLOCK <= size).map(|found| found.options))
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the image, a multiple of [`BLOCK`].
    pub bytes: u64,
    /// Number of files, directories and other entries.
    pub inodes: u64,
}

impl Tree {
    /// Writes the image into an empty file, from its start. The same tree gives the same bytes.
    ///
    /// # Errors
    /// A source cannot be read or shrank, or the image is too large or cannot be written. The file is then not a valid image.
    pub fn write(&self, out: &mut File, options: &Options) -> Result<Written, WriteError> {
        let layout = Layout::of(self)?;
        let inodes = layout.places.len() as u64;
        let bytes = u64::from(layout.blocks) * BLOCK;
        let mut meta = self.metadata(&layout)?;
        let root = u16::try_from(layout.number(NodeId::ROOT)).unwrap_or_default(); // the first inode, at 1152
        let block = meta.get_mut(..4096).unwrap_or_default();
        Super { root, inodes, blocks: layout.blocks, options: *options }.seal(block);
        out.set_len(bytes).map_err(WriteError::Image)?;
        out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&meta)).map_err(WriteError::Image)?;
        for place in &layout.places {
            self.content(place, &layout, out)?;
        }
        out.flush().map_err(WriteError::Image)?;
        Ok(Written { bytes, inodes })
    }

    /// The metadata blocks: inodes, each followed by its inline tail.
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

    /// The part of the content stored behind the inode.
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

    /// Writes the part of the content stored in data blocks.
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

//! Placement in the image: superblock, inodes with inline tails, then data blocks.

use std::collections::HashMap;

use crate::block::BLOCK;
use crate::directory;
use crate::error::WriteError;
use crate::format::{INODE, SLOT, SUPER, SUPER_AT};
use crate::tree::{Kind, NodeId, Tree};

/// Files up to this size are stored inline. Longer ones start at a block, so that their pages can be mapped directly.
const MAX_INLINE_FILE: u64 = 1024;

/// Placement of one node.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) parent: NodeId,
    /// Bytes from the start of the image.
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) inline: bool,
    pub(crate) block: u32,
    pub(crate) links: u32,
}

impl Place {
    /// Inode number.
    pub(crate) fn number(&self) -> u64 {
        self.at / SLOT
    }

    /// Bytes of the content stored in data blocks.
    pub(crate) fn in_blocks(&self) -> u64 {
        if self.inline { self.size - self.size % BLOCK } else { self.size }
    }
}

/// Placement of all nodes, in inode order.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    index: HashMap<NodeId, usize>,
    /// Number of metadata blocks, including the one with the superblock.
    pub(crate) meta_blocks: u64,
    /// Total number of blocks.
    pub(crate) blocks: u32,
}

impl Layout {
    /// Lays out a tree.
    pub(crate) fn of(tree: &Tree) -> Result<Self, WriteError> {
        let mut layout = Self { places: Vec::new(), index: HashMap::new(), meta_blocks: 0, blocks: 0 };
        layout.collect(tree)?;
        let mut at = (SUPER_AT + SUPER) as u64;
        for place in &mut layout.places {
            let need = INODE + if place.inline { place.size % BLOCK } else { 0 };
            if at % BLOCK + need > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            place.at = at;
            at = (at + need).next_multiple_of(SLOT);
        }
        layout.meta_blocks = at.div_ceil(BLOCK);
        let mut block = layout.meta_blocks;
        for place in &mut layout.places {
            place.block = u32::try_from(block).map_err(|source| WriteError::TooLarge { source })?;
            block = block.saturating_add(place.in_blocks().div_ceil(BLOCK));
        }
        layout.blocks = u32::try_from(block).map_err(|source| WriteError::TooLarge { source })?;
        Ok(layout)
    }

    /// Inode number of a node of the tree.
    pub(crate) fn number(&self, id: NodeId) -> u64 {
        self.index.get(&id).and_then(|index| self.places.get(*index)).map_or(0, Place::number)
    }

    /// Collects every node once, parents first.
    fn collect(&mut self, tree: &Tree) -> Result<(), WriteError> {
        let mut next = vec![(NodeId::ROOT, NodeId::ROOT)];
        while let Some((node, parent)) = next.pop() {
            if let Some(place) = self.index.get(&node).and_then(|index| self.places.get_mut(*index)) {
                place.links += 1;
                continue;
            }
            let subdirectories = |id: &&NodeId| matches!(tree.node(**id).kind, Kind::Directory);
            let (size, links) = match &tree.node(node).kind {
                Kind::Directory => {
                    let size = directory::size(&directory::entries(tree, node, parent));
                    let children = &tree.node(node).children;
                    next.extend(children.values().rev().map(|child| (*child, node)));
                    (size, 2 + children.values().filter(subdirectories).count())
                }
                Kind::File(source) => (source.len()?, 1),
                Kind::Symlink(target) => (target.len() as u64, 1),
                Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Socket => (0, 1),
            };
            let tail = size % BLOCK;
            let is_small = size <= MAX_INLINE_FILE || !matches!(tree.node(node).kind, Kind::File(_));
            let inline = tail > 0 && tail + INODE <= BLOCK && is_small;
            self.index.insert(node, self.places.len());
            let links = u32::try_from(links).unwrap_or(u32::MAX);
            self.places.push(Place { node, parent, at: 0, size, inline, block: 0, links });
        }
        Ok(())
    }
}

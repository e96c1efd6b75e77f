//! Directory blocks: entries (inode number, offset of the name, type) sorted by name, followed by the names.

use crate::block::BLOCK;
use crate::format::{entry_kind, overlay};
use crate::tree::{NodeId, Tree};

const ENTRY: usize = 12;
const BLOCK_BYTES: usize = 4096;

/// An entry: name and node.
type Named<'a> = (&'a [u8], NodeId);

/// The entries of a directory, including `.` and `..`, in the order that the kernel searches.
pub(crate) fn entries(tree: &Tree, dir: NodeId, parent: NodeId) -> Vec<Named<'_>> {
    let mut all: Vec<Named<'_>> = tree.node(dir).children.iter().map(|(name, id)| (name.as_slice(), *id)).collect();
    all.push((b".", dir));
    all.push((b"..", parent));
    all.sort_unstable();
    all
}

/// Splits entries into blocks.
fn blocks<'e, 't>(entries: &'e [Named<'t>]) -> Vec<&'e [Named<'t>]> {
    let (mut blocks, mut rest, mut used, mut count) = (Vec::new(), entries, 0, 0);
    for (name, _) in entries {
        let need = ENTRY + name.len();
        if used + need > BLOCK_BYTES {
            let (full, after) = rest.split_at(count);
            blocks.push(full);
            (rest, used, count) = (after, 0, 0);
        }
        used += need;
        count += 1;
    }
    blocks.push(rest);
    blocks
}

/// Encoded size, in bytes.
pub(crate) fn size(entries: &[Named<'_>]) -> u64 {
    let blocks = blocks(entries);
    let last: usize = blocks.last().map_or(0, |last| last.iter().map(|(name, _)| ENTRY + name.len()).sum());
    (blocks.len() as u64 - 1) * BLOCK + last as u64
}

/// Encodes the directory.
pub(crate) fn encode(tree: &Tree, entries: &[Named<'_>], number: impl Fn(NodeId) -> u64) -> Vec<u8> {
    let mut content = Vec::new();
    for block in blocks(entries) {
        content.resize(content.len().next_multiple_of(BLOCK_BYTES), 0);
        let start = content.len();
        content.resize(start + block.len() * ENTRY, 0);
        for (index, (name, id)) in block.iter().enumerate() {
            let name_at = u16::try_from(content.len() - start).unwrap_or(u16::MAX); // a block has 4096 bytes
            let mut entry = number(*id).to_le_bytes().to_vec();
            entry.extend(name_at.to_le_bytes());
            entry.extend([entry_kind(&tree.node(*id).kind), 0]);
            overlay(&mut content, start + index * ENTRY, &entry);
            content.extend_from_slice(name);
        }
    }
    content
}

//! On-disk format of superblock and inodes, as in the kernel's EROFS documentation: little-endian. Inodes are always extended ones,
//! which hold any owner, size and time.

use crate::tree::Kind;

/// Offset of the superblock, in bytes.
pub(crate) const SUPER_AT: usize = 1024;
/// Size of the superblock, in bytes; the first inode follows it.
pub(crate) const SUPER: usize = 128;
/// Size of an extended inode, in bytes.
pub(crate) const INODE: u64 = 64;
/// Unit of inode numbers, in bytes.
pub(crate) const SLOT: u64 = 32;

const MAGIC: u32 = 0xE0F5_E1E2;
const HAS_CHECKSUM: u32 = 1;
const BLOCK_BITS: u8 = 12;
const EXTENDED: u16 = 1;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;

/// Description of an image, kept in its superblock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Creation time, in seconds since 1970.
    pub mtime: u64,
    /// Volume UUID; may be zero.
    pub uuid: [u8; 16],
    /// Volume label, zero-padded.
    pub label: [u8; 16],
}

/// A superblock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Super {
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) options: Options,
}

impl Super {
    /// Writes it into the first block, which must hold its inodes already, and adds the block checksum.
    pub(crate) fn seal(&self, block: &mut [u8]) {
        let mut fields = Vec::with_capacity(SUPER);
        fields.extend(MAGIC.to_le_bytes());
        fields.extend(0_u32.to_le_bytes()); // checksum, below
        fields.extend(HAS_CHECKSUM.to_le_bytes());
        fields.extend([BLOCK_BITS, 0]);
        fields.extend(self.root.to_le_bytes());
        fields.extend(self.inodes.to_le_bytes());
        fields.extend(self.options.mtime.to_le_bytes());
        fields.extend(0_u32.to_le_bytes()); // nanoseconds
        fields.extend(self.blocks.to_le_bytes());
        fields.extend([0; 8]); // metadata and attributes begin at block 0
        fields.extend(self.options.uuid);
        fields.extend(self.options.label);
        fields.resize(SUPER, 0);
        overlay(block, SUPER_AT, &fields);
        let checksum = crc32c(block.get(SUPER_AT..).unwrap_or_default());
        overlay(block, SUPER_AT + 4, &checksum.to_le_bytes());
    }

    /// Parses it from its first byte. The kernel verifies the checksum, this does not.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let magic = bytes.first_chunk::<4>().map(|magic| u32::from_le_bytes(*magic));
        if magic != Some(MAGIC) || bytes.get(12) != Some(&BLOCK_BITS) {
            return None;
        }
        let options = Options {
            mtime: u64::from_le_bytes(*bytes.get(24..)?.first_chunk()?),
            uuid: *bytes.get(48..)?.first_chunk()?,
            label: *bytes.get(64..)?.first_chunk()?,
        };
        Some(Self {
            root: u16::from_le_bytes(*bytes.get(14..)?.first_chunk()?),
            inodes: u64::from_le_bytes(*bytes.get(16..)?.first_chunk()?),
            blocks: u32::from_le_bytes(*bytes.get(36..)?.first_chunk()?),
            options,
        })
    }
}

/// An inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) meta: crate::tree::Meta,
    pub(crate) size: u64,
    pub(crate) links: u32,
    /// Whether the tail of the content follows the inode.
    pub(crate) inline: bool,
    /// First block of the content.
    pub(crate) block: u32,
    /// Inode number that `stat` reports.
    pub(crate) number: u32,
}

impl Inode<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let layout = if self.inline { FLAT_INLINE } else { FLAT_PLAIN };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend((EXTENDED | layout << 1).to_le_bytes());
        bytes.extend(0_u16.to_le_bytes()); // no extended attributes
        bytes.extend((kind_bits(self.kind) | self.meta.mode & 0o7777).to_le_bytes());
        bytes.extend(0_u16.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(device(self.kind).unwrap_or(self.block).to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.meta.uid.to_le_bytes());
        bytes.extend(self.meta.gid.to_le_bytes());
        bytes.extend(self.meta.mtime.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes()); // nanoseconds
        bytes.extend(self.links.to_le_bytes());
        bytes.resize(64, 0);
        bytes
    }
}

fn kind_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory => 0o040_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::CharDevice { .. } => 0o020_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
    }
}

/// File type in a directory entry.
pub(crate) fn entry_kind(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// Packs a device number as the kernel does: 12 bits major, 20 bits minor.
fn device(kind: &Kind) -> Option<u32> {
    match kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            Some(minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12)
        }
        _ => None,
    }
}

/// Copies bytes over others. The layout makes sure that they fit; otherwise nothing is copied.
pub(crate) fn overlay(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// CRC-32C as EROFS uses it: initial value all ones, no final inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_check_value_of_the_standard() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_packs_them() {
        assert_eq!(device(&Kind::CharDevice { major: 5, minor: 1 }), Some(0x501));
        assert_eq!(device(&Kind::BlockDevice { major: 259, minor: 0x12345 }), Some(0x1231_0345));
    }
}

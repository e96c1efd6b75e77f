//! A reader of images, written from the kernel's documentation and sharing nothing with the writer.

use std::collections::BTreeMap;

/// One entry as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: u64,
    pub(crate) links: u32,
    /// Number of its inode; two names of one file have the same.
    pub(crate) nid: u64,
    /// Content of a file, target of a link.
    pub(crate) content: Vec<u8>,
    /// Number of a device.
    pub(crate) device: u32,
}

fn number<const N: usize>(image: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&image[at..at + N]);
    u64::from_le_bytes(bytes)
}

fn place(nid: u64) -> usize {
    usize::try_from(nid * 32).unwrap()
}

fn content(image: &[u8], nid: u64) -> Vec<u8> {
    let at = place(nid);
    let size = usize::try_from(number::<8>(image, at + 8)).unwrap();
    let block = usize::try_from(number::<4>(image, at + 16)).unwrap();
    let layout = number::<2>(image, at) >> 1;
    assert_eq!(number::<2>(image, at) & 1, 1, "extended inode");
    let whole = if layout == 2 { size - size % 4096 } else { size };
    let mut bytes = if whole > 0 { image[block * 4096..block * 4096 + whole].to_vec() } else { Vec::new() };
    if layout == 2 {
        let tail = at + 64;
        assert!(tail / 4096 == (tail + size - whole - 1) / 4096, "what lies behind an inode stays in its block");
        bytes.extend_from_slice(&image[tail..tail + size - whole]);
    }
    bytes
}

/// Everything in an image, by path; the root is the empty one.
pub(crate) fn read(image: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    assert_eq!(number::<4>(image, 1024), 0xE0F5_E1E2);
    assert_eq!(image.len() as u64, number::<4>(image, 1024 + 36) * 4096, "the size is the one it says");
    let root = number::<2>(image, 1024 + 14);
    let mut all = BTreeMap::new();
    walk(image, root, root, b"", &mut all);
    let mut inodes: Vec<u64> = all.values().map(|entry| entry.nid).collect();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len() as u64, number::<8>(image, 1024 + 16), "the number of inodes is the one it says");
    all
}

fn walk(image: &[u8], nid: u64, parent: u64, path: &[u8], all: &mut BTreeMap<Vec<u8>, Entry>) {
    let at = place(nid);
    let mode = u16::try_from(number::<2>(image, at + 4)).unwrap();
    let kind = mode & 0o170_000;
    let is_device = kind == 0o020_000 || kind == 0o060_000;
    let entry = Entry {
        mode,
        uid: u32::try_from(number::<4>(image, at + 24)).unwrap(),
        gid: u32::try_from(number::<4>(image, at + 28)).unwrap(),
        mtime: number::<8>(image, at + 32),
        links: u32::try_from(number::<4>(image, at + 44)).unwrap(),
        nid,
        content: if is_device || kind == 0o040_000 { Vec::new() } else { content(image, nid) },
        device: if is_device { u32::try_from(number::<4>(image, at + 16)).unwrap() } else { 0 },
    };
    all.insert(path.to_vec(), entry);
    if kind != 0o040_000 {
        return;
    }
    let mut before: Option<Vec<u8>> = None;
    for (name, child) in names(&content(image, nid)) {
        assert!(before.as_ref().is_none_or(|before| *before < name), "names are sorted");
        match name.as_slice() {
            b"." => assert_eq!(child, nid),
            b".." => assert_eq!(child, parent),
            _ => {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                walk(image, child, nid, &[path, slash, &name].concat(), all);
            }
        }
        before = Some(name);
    }
}

fn names(content: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let mut names = Vec::new();
    for block in content.chunks(4096) {
        let count = usize::try_from(number::<2>(block, 8)).unwrap() / 12;
        for index in 0..count {
            let begin = usize::try_from(number::<2>(block, index * 12 + 8)).unwrap();
            let next = (index + 1 < count).then(|| usize::try_from(number::<2>(block, index * 12 + 20)).unwrap());
            let name = &block[begin..next.unwrap_or(block.len())];
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            names.push((name[..end].to_vec(), number::<8>(block, index * 12)));
        }
    }
    names
}

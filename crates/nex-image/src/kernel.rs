//! The kernel of libkrunfw as a file that virtual machine monitors boot. The library carries a kernel's memory image as one symbol and
//! tells where it belongs by a function of three constants; both are read as data, nothing of it is loaded or run.
//!
//! What comes out is an ELF file with one segment, and the kernel's own note of its PVH entry point as a segment beside it.

use std::path::{Path, PathBuf};

use crate::bytes::{slice, u16_at, u32_at, u64_at};
use crate::file::{FileError, read_bounded};

/// Largest library read, in bytes.
const MAX_LIBRARY: u64 = 256 * 1024 * 1024;
/// Where the segment begins in the file made, in bytes.
const SEGMENT_AT: u64 = 4096;
const X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`
const PVH_ENTRY: u32 = 18;

/// Why there is no kernel in a library.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error(
        "{path} has no kernel that can be booted here: {why}; next: take libkrunfw 5 for x86_64, or name a kernel with kernel_filepath"
    )]
    Library {
        /// Its path.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
}

/// Reads a library and makes the bootable file of it.
///
/// # Errors
/// The file cannot be read, is no such library, or its kernel has no PVH entry point.
pub fn extract(library: &Path) -> Result<Vec<u8>, KernelError> {
    let bytes = read_bounded(library, MAX_LIBRARY)?;
    from_library(&bytes).map_err(|why| KernelError::Library { path: library.to_owned(), why })
}

/// Whether a file begins like a kernel that virtual machine monitors boot: an ELF file.
///
/// # Errors
/// The file cannot be read.
pub fn is_bootable(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(20).read_to_end(&mut head)?;
    Ok(is_elf(&head))
}

pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    // 64 bits, little-endian, x86-64
    bytes.starts_with(b"\x7fELF\x02\x01") && u16_at(bytes, 18) == Some(X86_64)
}

/// The same from memory.
pub(crate) fn from_library(library: &[u8]) -> Result<Vec<u8>, &'static str> {
    if !is_elf(library) {
        return Err("it is no ELF file for x86_64");
    }
    let symbol = |name| symbol(library, name).and_then(|(address, size)| in_file(library, address, size));
    let bundle = symbol(b"KERNEL_BUNDLE\0").ok_or("it has no symbol KERNEL_BUNDLE")?;
    let code = symbol(b"krunfw_get_kernel\0").ok_or("it has no symbol krunfw_get_kernel")?;
    let [load, entry, size] = constants(code).ok_or("krunfw_get_kernel is not the function that is known")?;
    let kernel = slice(bundle, 0, size).ok_or("the kernel is longer than the bundle")?;
    if load % SEGMENT_AT != 0 || !(load..load.saturating_add(size)).contains(&entry) {
        return Err("the kernel's entry point lies outside of it");
    }
    let (note, note_len) = pvh_note(kernel, load).ok_or("the kernel has no PVH entry point")?;
    Ok(elf(kernel, (load, entry), (note, note_len)))
}

/// Address and size of a symbol.
fn symbol(library: &[u8], name: &[u8]) -> Option<(u64, u64)> {
    const DYNAMIC_SYMBOLS: u32 = 11;
    let (at, size, count) = (u64_at(library, 40)?, u64::from(u16_at(library, 58)?), u64::from(u16_at(library, 60)?));
    let section = |index: u64| slice(library, at.checked_add(index.checked_mul(size)?)?, size);
    let content = |section: &[u8]| slice(library, u64_at(section, 24)?, u64_at(section, 32)?);
    let table = (0..count).filter_map(section).find(|section| u32_at(section, 4) == Some(DYNAMIC_SYMBOLS))?;
    let names = content(section(u32_at(table, 40)?.into())?)?;
    let is_it = |entry: &&[u8]| u32_at(entry, 0).and_then(|at| slice(names, at.into(), name.len() as u64)) == Some(name);
    let entry = content(table)?.chunks_exact(24).find(is_it)?;
    Some((u64_at(entry, 8)?, u64_at(entry, 16)?))
}

/// What is mapped at an address.
fn in_file(library: &[u8], address: u64, size: u64) -> Option<&[u8]> {
    const LOAD: u32 = 1;
    let (at, entry, count) = (u64_at(library, 32)?, u64::from(u16_at(library, 54)?), u64::from(u16_at(library, 56)?));
    let segments = (0..count).filter_map(|index| slice(library, at.checked_add(index.checked_mul(entry)?)?, entry));
    segments.filter(|segment| u32_at(segment, 0) == Some(LOAD)).find_map(|segment| {
        let (offset, begin, len) = (u64_at(segment, 8)?, u64_at(segment, 16)?, u64_at(segment, 32)?);
        let inner = address.checked_sub(begin)?;
        (inner.checked_add(size)? <= len).then(|| slice(library, offset.checked_add(inner)?, size))?
    })
}

/// The constants of `*load = …; *entry = …; *size = …;`: what each `movq $imm32, (%rax)` of the function stores, in that order.
fn constants(code: &[u8]) -> Option<[u64; 3]> {
    let stores = code.windows(7).filter(|window| window.starts_with(&[0x48, 0xc7, 0x00]));
    let values: Vec<u64> = stores.filter_map(|window| u32_at(window, 3)).map(u64::from).collect();
    values.try_into().ok()
}

/// Where in the kernel the note of its PVH entry point is, and how long it is.
fn pvh_note(kernel: &[u8], load: u64) -> Option<(u64, u64)> {
    // Notes are aligned to four bytes: length of the name, length of what it says, kind, name, what it says.
    let words = kernel.chunks_exact(4).enumerate().filter(|(_, word)| *word == b"Xen\0");
    let begins = words.filter_map(|(index, _)| (index as u64 * 4).checked_sub(12));
    begins.into_iter().find_map(|at| {
        let len = u64::from(u32_at(kernel, at + 4)?);
        let entry = if len == 8 { u64_at(kernel, at + 16)? } else { u64::from(u32_at(kernel, at + 16)?) };
        let is_it = u32_at(kernel, at)? == 4 && u32_at(kernel, at + 8)? == PVH_ENTRY && matches!(len, 4 | 8);
        (is_it && (load..load.saturating_add(kernel.len() as u64)).contains(&entry)).then_some((at, 16 + len))
    })
}

/// The file: a segment for the kernel, and one that points at its note.
fn elf(kernel: &[u8], (load, entry): (u64, u64), (note, note_len): (u64, u64)) -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0]); // executable
    file.extend(X86_64.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend([entry, HEADER.into(), 0].map(u64::to_le_bytes).concat());
    file.extend([0; 4]);
    file.extend([HEADER, SEGMENT, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let mut segment = |kind_and_flags: [u32; 2], at: u64, len: u64, align: u64| {
        file.extend(kind_and_flags.map(u32::to_le_bytes).concat());
        file.extend([SEGMENT_AT + at, load + at, load + at, len, len, align].map(u64::to_le_bytes).concat());
    };
    segment([1, 7], 0, kernel.len() as u64, SEGMENT_AT);
    segment([4, 4], note, note_len, 4);
    file.resize(4096, 0);
    file.extend_from_slice(kernel);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library as small as one can be: a dynamic symbol table, its names, a function and a bundle.
    fn library(function: &[u8], kernel: &[u8]) -> Vec<u8> {
        let names = b"\0KERNEL_BUNDLE\0krunfw_get_kernel\0";
        let (names_at, symbols_at) = (64_u64, 128_u64);
        let (code_at, kernel_at) = (256_u64, 4096_u64);
        let sections_at = kernel_at + kernel.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        file.extend([0, 320, sections_at].map(u64::to_le_bytes).concat());
        file.extend([0; 4]);
        file.extend([64_u16, 56, 1, 64, 2, 0].map(u16::to_le_bytes).concat());
        file.extend_from_slice(names);
        file.resize(128, 0);
        for (name, at, len) in [(1_u32, kernel_at, kernel.len()), (15, code_at, function.len())] {
            file.extend(name.to_le_bytes());
            file.extend([0; 4]);
            file.extend([at, len as u64].map(u64::to_le_bytes).concat());
        }
        file.resize(256, 0);
        file.extend_from_slice(function);
        file.resize(320, 0);
        file.extend([1_u32, 5].map(u32::to_le_bytes).concat());
        file.extend([0, 0, 0, sections_at, sections_at, 4096].map(u64::to_le_bytes).concat());
        file.resize(4096, 0);
        file.extend_from_slice(kernel);
        for (kind, at, len, link) in [(11_u32, symbols_at, 48_u64, 1_u32), (3, names_at, names.len() as u64, 0)] {
            file.extend([0, kind].map(u32::to_le_bytes).concat());
            file.extend([0, 0, at, len].map(u64::to_le_bytes).concat());
            file.extend([link, 0].map(u32::to_le_bytes).concat());
            file.extend([0; 16]);
        }
        file
    }

    fn function(load: u32, entry: u32, size: u32) -> Vec<u8> {
        let store = |value: u32| [&[0x48, 0xc7, 0x00], value.to_le_bytes().as_slice()].concat();
        [vec![0x55, 0x48, 0x89, 0xe5], store(load), store(entry), store(size), vec![0x5d, 0xc3]].concat()
    }

    fn kernel() -> Vec<u8> {
        let mut kernel = vec![0xcc; 8192];
        let note = [4_u32, 8, 18].map(u32::to_le_bytes).concat();
        let note = [note, b"Xen\0".to_vec(), 0x0010_0020_u64.to_le_bytes().to_vec()].concat();
        kernel[5000..5024].copy_from_slice(&note);
        kernel
    }

    #[test]
    fn the_kernel_becomes_a_file_with_its_entry_points() {
        let elf = from_library(&library(&function(0x10_0000, 0x10_0123, 8192), &kernel())).unwrap();
        assert!(is_elf(&elf) && elf.len() == 4096 + 8192 && elf[4096..] == kernel());
        assert_eq!((u64_at(&elf, 24), u16_at(&elf, 56)), (Some(0x10_0123), Some(2)));
        let segment = |at: u64| [8, 16, 24, 32, 40].map(|field| u64_at(&elf, at + field).unwrap());
        assert_eq!(segment(64), [4096, 0x10_0000, 0x10_0000, 8192, 8192]);
        assert_eq!(segment(120), [9096, 0x10_0000 + 5000, 0x10_0000 + 5000, 24, 24]);
    }

    #[test]
    fn what_is_no_such_library_is_refused_with_the_reason() {
        let good = library(&function(0x10_0000, 0x10_0123, 8192), &kernel());
        let cases: [(Vec<u8>, &str); 7] = [
            (b"MZ".to_vec(), "no ELF"),
            (good[..5000].to_vec(), "KERNEL_BUNDLE"),
            (library(&function(0x10_0000, 0x10_0123, 8193), &kernel()), "longer than the bundle"),
            (library(&function(0x10_0000, 0x20_0000, 8192), &kernel()), "outside"),
            (library(&function(0x10_0001, 0x10_0123, 8192), &kernel()), "outside"),
            (library(&[0x90; 40], &kernel()), "krunfw_get_kernel"),
            (library(&function(0x10_0000, 0x10_0123, 4096), &kernel()), "no PVH"),
        ];
        for (bytes, reason) in cases {
            let why = from_library(&bytes).unwrap_err();
            assert!(why.contains(reason), "{why} for {reason}");
        }
    }

    #[test]
    fn a_broken_library_is_never_a_crash() {
        let good = library(&function(0x10_0000, 0x10_0123, 8192), &kernel());
        for at in (0..512).chain(good.len() - 128..good.len()) {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                drop(from_library(&bytes));
            }
        }
        for len in (0..good.len()).step_by(97) {
            drop(from_library(&good[..len]));
        }
    }
}

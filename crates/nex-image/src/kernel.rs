//! Converts the kernel of libkrunfw to a file that virtual machine monitors boot. The library carries the kernel's memory image as a
//! symbol, and a function of three constants that says where it is loaded. Both are read as data; nothing is loaded or run.
//!
//! The result is an ELF file with two segments: the kernel, and the kernel's own note with its PVH entry point.

use std::path::Path;

use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

/// File offset of the kernel's segment.
const SEGMENT_AT: u64 = 4096;
/// `XEN_ELFNOTE_PHYS32_ENTRY`
const PVH_ENTRY: u32 = 18;

/// Why the kernel of a library cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The file is of another kind, or truncated.
    #[error("it is no ELF library for x86_64, or was cut off")]
    NotElf,
    /// The file is another library.
    #[error("it has no symbol {0}; next: take libkrunfw 5 for x86_64")]
    NoSymbol(&'static str),
    /// The library has another version.
    #[error("krunfw_get_kernel is not the known function; next: take libkrunfw 5 for x86_64")]
    UnknownFunction,
    /// The function declares more bytes than the bundle has.
    #[error("the kernel is longer than the bundle")]
    TooLong,
    /// The entry point is not in the kernel.
    #[error("the kernel's entry point lies outside of it")]
    EntryOutside,
    /// Monitors start kernels at their PVH entry point.
    #[error("the kernel has no PVH entry point")]
    NoPvhEntry,
}

/// Whether a file starts with the header of a bootable kernel, which is an ELF file.
///
/// # Errors
/// The file cannot be read.
pub fn is_bootable(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(size_of::<FileHeader64<LittleEndian>>() as u64).read_to_end(&mut head)?;
    Ok(elf_header(&head).is_some())
}

/// Parses the header of an ELF file for x86_64.
pub(crate) fn elf_header(head: &[u8]) -> Option<&FileHeader64<LittleEndian>> {
    let header = FileHeader64::<LittleEndian>::parse(head).ok()?;
    (header.is_little_endian() && header.e_machine(LittleEndian) == EM_X86_64).then_some(header)
}

/// Converts the kernel of a library to a bootable file.
///
/// # Errors
/// The bytes are no such library, or its kernel has no PVH entry point.
pub(crate) fn from_library(library: &[u8]) -> Result<Vec<u8>, KernelError> {
    elf_header(library).ok_or(KernelError::NotElf)?;
    let elf = ElfFile64::<LittleEndian>::parse(library).map_err(|_malformed| KernelError::NotElf)?;
    let content = |name| content(&elf, name).ok_or(KernelError::NoSymbol(name));
    let bundle = content("KERNEL_BUNDLE")?;
    let [load, entry, size] = constants(content("krunfw_get_kernel")?).ok_or(KernelError::UnknownFunction)?;
    let kernel = usize::try_from(size).ok().and_then(|size| bundle.get(..size)).ok_or(KernelError::TooLong)?;
    if load % SEGMENT_AT != 0 || !(load..load.saturating_add(size)).contains(&entry) {
        return Err(KernelError::EntryOutside);
    }
    let note = pvh_note(kernel, load).ok_or(KernelError::NoPvhEntry)?;
    Ok(bootable(kernel, (load, entry), note))
}

/// The bytes of a dynamic symbol.
fn content<'a>(elf: &ElfFile64<'a, LittleEndian>, name: &str) -> Option<&'a [u8]> {
    let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(name))?;
    elf.segments().find_map(|segment| segment.data_range(symbol.address(), symbol.size()).ok().flatten())
}

/// The constants of `*load = …; *entry = …; *size = …;`: the operands of the function's `movq $imm32, (%rax)`, in that order.
fn constants(code: &[u8]) -> Option<[u64; 3]> {
    let stores = code.windows(7).filter_map(|window| window.strip_prefix(&[0x48, 0xc7, 0x00]));
    let values: Vec<u64> = stores.filter_map(|value| u32_at(value, 0)).map(u64::from).collect();
    values.try_into().ok()
}

/// Offset and length, in the kernel, of the note with its PVH entry point. The kernel is a memory image without program headers, so
/// the note is found by its alignment and its name.
fn pvh_note(kernel: &[u8], load: u64) -> Option<(u64, u64)> {
    // A note: length of the name, length of the descriptor, type, name, descriptor; each aligned to four bytes.
    let words = kernel.chunks_exact(4).enumerate().filter(|(_, word)| *word == b"Xen\0");
    let begins = words.filter_map(|(index, _)| (index * 4).checked_sub(12));
    begins.into_iter().find_map(|at| {
        let len = u32_at(kernel, at + 4)?;
        let entry = if len == 8 { u64_at(kernel, at + 16)? } else { u64::from(u32_at(kernel, at + 16)?) };
        let is_it = u32_at(kernel, at)? == 4 && u32_at(kernel, at + 8)? == PVH_ENTRY && matches!(len, 4 | 8);
        let is_inside = (load..load.saturating_add(kernel.len() as u64)).contains(&entry);
        (is_it && is_inside).then_some((at as u64, 16 + u64::from(len)))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Builds an executable with a segment for the kernel and one for its note.
fn bootable(kernel: &[u8], (load, entry): (u64, u64), (note, note_len): (u64, u64)) -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0]); // executable
    file.extend(EM_X86_64.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend([entry, HEADER.into(), 0].map(u64::to_le_bytes).concat());
    file.extend([0; 4]);
    file.extend([HEADER, SEGMENT, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let mut segment = |kind_and_flags: [u32; 2], at: u64, len: u64, align: u64| {
        file.extend(kind_and_flags.map(u32::to_le_bytes).concat());
        file.extend([SEGMENT_AT + at, load + at, load + at, len, len, align].map(u64::to_le_bytes).concat());
    };
    segment([PT_LOAD, 7], 0, kernel.len() as u64, SEGMENT_AT);
    segment([PT_NOTE, 4], note, note_len, 4);
    file.resize(4096, 0);
    file.extend_from_slice(kernel);
    file
}

#[cfg(test)]
mod tests {
    use object::read::elf::ProgramHeader as _;

    use super::*;

    /// A minimal library: a dynamic symbol table, its names, a function and a bundle.
    fn library(function: &[u8], kernel: &[u8]) -> Vec<u8> {
        let names = b"\0KERNEL_BUNDLE\0krunfw_get_kernel\0";
        let (names_at, symbols_at) = (64_u64, 128_u64);
        let (code_at, kernel_at) = (256_u64, 4096_u64);
        let sections_at = kernel_at + kernel.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        file.extend([0, 320, sections_at].map(u64::to_le_bytes).concat());
        file.extend([0; 4]);
        file.extend([64_u16, 56, 1, 64, 3, 2].map(u16::to_le_bytes).concat());
        file.extend_from_slice(names);
        file.resize(128 + 24, 0); // up to the second symbol: the first one is null
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
        let sections = [(0_u32, 0, 0, 0_u32), (11, symbols_at, 72_u64, 2), (3, names_at, names.len() as u64, 0)];
        for (kind, at, len, link) in sections {
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
        let file = from_library(&library(&function(0x10_0000, 0x10_0123, 8192), &kernel())).unwrap();
        assert!(file.len() == 4096 + 8192 && file[4096..] == kernel());
        let header = elf_header(&file).unwrap();
        assert_eq!(header.e_entry(LittleEndian), 0x10_0123);
        let segments = header.program_headers(LittleEndian, file.as_slice()).unwrap();
        let placed: Vec<_> = segments
            .iter()
            .map(|segment| {
                (
                    segment.p_type(LittleEndian),
                    segment.p_offset(LittleEndian),
                    segment.p_paddr(LittleEndian),
                    segment.p_filesz(LittleEndian),
                )
            })
            .collect();
        assert_eq!(placed, [(PT_LOAD, 4096, 0x10_0000, 8192), (PT_NOTE, 9096, 0x10_0000 + 5000, 24)]);
    }

    #[test]
    fn what_is_no_such_library_is_refused_with_the_reason() {
        let good = library(&function(0x10_0000, 0x10_0123, 8192), &kernel());
        let cases: [(Vec<u8>, KernelError); 7] = [
            (b"MZ".to_vec(), KernelError::NotElf),
            (good[..5000].to_vec(), KernelError::NotElf),
            (library(&function(0x10_0000, 0x10_0123, 8193), &kernel()), KernelError::TooLong),
            (library(&function(0x10_0000, 0x20_0000, 8192), &kernel()), KernelError::EntryOutside),
            (library(&function(0x10_0001, 0x10_0123, 8192), &kernel()), KernelError::EntryOutside),
            (library(&[0x90; 40], &kernel()), KernelError::UnknownFunction),
            (library(&function(0x10_0000, 0x10_0123, 4096), &kernel()), KernelError::NoPvhEntry),
        ];
        for (bytes, reason) in cases {
            assert_eq!(from_library(&bytes), Err(reason));
        }
    }

    #[test]
    fn a_corrupt_library_never_panics() {
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

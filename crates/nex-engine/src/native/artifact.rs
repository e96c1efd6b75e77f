//! What a native artifact is, told from its first bytes, so that a wrong file is refused with a reason before it is executed.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::StartError;

/// `e_machine` of the machine this agent runs on.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
/// Longest interpreter path and first line that are looked at; the kernel's own bounds are no larger.
const PATH_BYTES: usize = 4096;
/// Program headers looked at; a real program has about a dozen.
const PROGRAM_HEADERS: u16 = 256;

/// Refuses a file that cannot run here, and makes one that can executable.
pub(super) fn check(path: &Path) -> Result<(), StartError> {
    let host = |doing: &str| {
        let doing = format!("{doing} of {}", path.display());
        move |source| StartError::Host { doing, source }
    };
    let mut file = File::open(path).map_err(host("open the artifact"))?;
    let mut head = [0; 64];
    let length = read_up_to(&mut file, &mut head).map_err(host("read the head"))?;
    let head = head.get(..length).unwrap_or_default();
    match head {
        [0x7f, b'E', b'L', b'F', rest @ ..] => check_elf(&mut file, rest)?,
        [b'#', b'!', ..] => check_script(&mut file).map_err(StartError::Invalid)?,
        other => return Err(StartError::Invalid(format!("expected an ELF program or a #! script, found {}", describe(other)))),
    }
    let mode = file.metadata().map_err(host("read the mode"))?.permissions().mode();
    if mode & 0o100 == 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o555)).map_err(host("set the executable mode"))?;
    }
    Ok(())
}

fn check_elf(file: &mut File, after_magic: &[u8]) -> Result<(), StartError> {
    let invalid = |text: String| Err(StartError::Invalid(text));
    let &[class, data, ..] = after_magic else { return invalid("ELF file ends within its header".into()) };
    if (class, data) != (2, 1) {
        return invalid("expected a 64-bit little-endian ELF program, found another ELF class".into());
    }
    // Offsets in the ELF header, less the four bytes of magic.
    let (Some(kind), Some(machine), Some(at), Some(size), Some(count)) = (
        u16_at(after_magic, 16 - 4),
        u16_at(after_magic, 18 - 4),
        u64_at(after_magic, 32 - 4),
        u16_at(after_magic, 54 - 4),
        u16_at(after_magic, 56 - 4),
    ) else {
        return invalid("ELF file ends within its header".into());
    };
    if machine != MACHINE {
        return invalid(format!("ELF program is for machine {machine}, this one is {MACHINE} ({})", std::env::consts::ARCH));
    }
    if kind != 2 && kind != 3 {
        return invalid(format!("ELF file is no program: its type is {kind}, an executable has 2 or 3"));
    }
    let Some(interpreter) = interpreter(file, at, size, count.min(PROGRAM_HEADERS)) else { return Ok(()) };
    if Path::new(&interpreter).exists() {
        return Ok(());
    }
    invalid(format!(
        "file failed static link check: native binary contains at least one dynamically linked dependency: \
         it needs {interpreter:?}, which is not in this sandbox; link it statically or use an image that has it"
    ))
}

/// The program's `PT_INTERP`; a file too odd to have one is left to the kernel.
fn interpreter(file: &mut File, at: u64, size: u16, count: u16) -> Option<String> {
    for index in 0..count {
        let mut header = [0; 56];
        file.seek(SeekFrom::Start(at.checked_add(u64::from(size) * u64::from(index))?)).ok()?;
        file.read_exact(&mut header).ok()?;
        if u32::from_le_bytes(*header.first_chunk()?) == 3 {
            let mut path = vec![0; usize::try_from(u64_at(&header, 32)?).ok()?.min(PATH_BYTES)];
            file.seek(SeekFrom::Start(u64_at(&header, 8)?)).ok()?;
            file.read_exact(&mut path).ok()?;
            return Some(String::from_utf8_lossy(path.split(|byte| *byte == 0).next()?).into_owned());
        }
    }
    None
}

fn check_script(file: &mut File) -> Result<(), String> {
    let mut line = vec![0; PATH_BYTES];
    file.seek(SeekFrom::Start(2)).map_err(|error| format!("cannot read the script's first line: {error}"))?;
    let length = read_up_to(file, &mut line).map_err(|error| format!("cannot read the script's first line: {error}"))?;
    line.truncate(length);
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = String::from_utf8_lossy(line);
    let interpreter = words.split_ascii_whitespace().next().ok_or("script names no interpreter after #!")?;
    if !interpreter.starts_with('/') {
        return Err(format!("script's interpreter {interpreter:?} is not an absolute path"));
    }
    if !Path::new(interpreter).exists() {
        return Err(format!("script's interpreter {interpreter:?} is not in this sandbox; use an image that has it"));
    }
    Ok(())
}

fn describe(head: &[u8]) -> String {
    match head {
        [] => "an empty file".into(),
        [0, b'a', b's', b'm', ..] => "a WebAssembly module; deploy it with type wasm".into(),
        [b'M', b'Z', ..] => "a Windows program".into(),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] => "a macOS program".into(),
        [0x1f, 0x8b, ..] => "a gzip file; unpack it first".into(),
        other => format!("bytes {:02x?}", other.get(..4).unwrap_or(other)),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_bytes(bytes: &[u8]) -> Result<(), StartError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn a_wrong_file_is_refused_with_what_it_is() {
        for (bytes, word) in [
            (&b""[..], "an empty file"),
            (b"\0asm\x01\0\0\0", "type wasm"),
            (b"MZ\x90\0", "Windows"),
            (b"hello", "bytes [68, 65, 6c, 6c]"),
            (b"\x7fELF\x01\x01", "another ELF class"),
            (b"\x7fELF\x02\x01", "within its header"),
            (b"#!", "names no interpreter"),
            (b"#!python\n", "not an absolute path"),
            (b"#! /no/such/shell -e\n", "not in this sandbox"),
        ] {
            let text = check_bytes(bytes).unwrap_err().to_string();
            assert!(text.starts_with("failed to validate workload: ") && text.contains(word), "{text}");
        }
    }

    #[test]
    fn this_very_program_passes_and_one_for_another_machine_does_not() {
        let mut own = fs::read(std::env::current_exe().unwrap()).unwrap();
        own.truncate(64 * 1024);
        check_bytes(&own).unwrap();
        own[18] = 2;
        assert!(check_bytes(&own).unwrap_err().to_string().contains("is for machine 2"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn garbage_never_panics(magic in prop_oneof![Just(&b"\x7fELF\x02\x01"[..]), Just(&b"#!"[..]), Just(&b""[..])],
                                rest in prop::collection::vec(any::<u8>(), 0..256)) {
            let _checked = check_bytes(&[magic, &rest].concat());
        }
    }
}

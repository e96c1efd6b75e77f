//! Validates a native artifact before it is executed, so that a wrong file is refused with a reason.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use object::elf::{ELFCLASS64, ELFDATA2LSB, EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, ReadCache};

use crate::error::StartError;

/// `e_machine` of the machine this agent runs on.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };
/// Longest interpreter path and first line read; the kernel's own bounds are no larger.
const MAX_PATH: usize = 4096;
/// Most program headers read; a real program has about a dozen.
const MAX_PROGRAM_HEADERS: u16 = 256;

/// Why a file is not a program that runs here.
#[derive(Debug, thiserror::Error)]
enum ArtifactError {
    #[error("expected an ELF program or a #! script, found {0}")]
    NotAProgram(String),
    #[error("ELF file ends within its header")]
    Truncated,
    #[error("expected a 64-bit little-endian ELF program, found another ELF class")]
    Class,
    #[error("ELF program is for machine {0}, this one is {MACHINE} ({arch})", arch = std::env::consts::ARCH)]
    Machine(u16),
    #[error("ELF file is no program: its type is {0}, an executable has 2 or 3")]
    NotExecutable(u16),
    #[error(
        "file failed static link check: native binary contains at least one dynamically linked dependency: \
         it needs {0:?}, which is not in this sandbox; link it statically or use an image that has it"
    )]
    DynamicallyLinked(String),
    #[error("cannot read the script's first line: {0}")]
    FirstLine(io::Error),
    #[error("script names no interpreter after #!")]
    NoInterpreter,
    #[error("script's interpreter {0:?} is not an absolute path")]
    RelativeInterpreter(String),
    #[error("script's interpreter {0:?} is not in this sandbox; use an image that has it")]
    InterpreterMissing(String),
}

impl From<ArtifactError> for StartError {
    fn from(error: ArtifactError) -> Self {
        Self::Invalid(error.to_string())
    }
}

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
        [0x7f, b'E', b'L', b'F', ..] => check_elf(&file, head)?,
        [b'#', b'!', ..] => check_script(&mut file)?,
        other => return Err(ArtifactError::NotAProgram(describe(other)).into()),
    }
    let mode = file.metadata().map_err(host("read the mode"))?.permissions().mode();
    if mode & 0o100 == 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o555)).map_err(host("set the executable mode"))?;
    }
    Ok(())
}

fn check_elf(file: &File, head: &[u8]) -> Result<(), ArtifactError> {
    match head {
        [_, _, _, _, ELFCLASS64, ELFDATA2LSB, ..] => {}
        [_, _, _, _, _, _, ..] => return Err(ArtifactError::Class),
        _ => return Err(ArtifactError::Truncated),
    }
    let header = FileHeader64::<LittleEndian>::parse(head).map_err(|_short| ArtifactError::Truncated)?;
    let (machine, kind) = (header.e_machine(LittleEndian), header.e_type(LittleEndian));
    if machine != MACHINE {
        return Err(ArtifactError::Machine(machine));
    }
    if !matches!(kind, ET_EXEC | ET_DYN) {
        return Err(ArtifactError::NotExecutable(kind));
    }
    match interpreter(file, header) {
        Some(path) if !Path::new(&path).exists() => Err(ArtifactError::DynamicallyLinked(path)),
        _ => Ok(()),
    }
}

/// The program's `PT_INTERP`. A malformed file has none here: the kernel refuses it.
fn interpreter(file: &File, header: &FileHeader64<LittleEndian>) -> Option<String> {
    if header.e_phnum(LittleEndian) > MAX_PROGRAM_HEADERS {
        return None;
    }
    let data = ReadCache::new(file);
    let segments = header.program_headers(LittleEndian, &data).ok()?;
    let segment = segments.iter().find(|segment| segment.p_type(LittleEndian) == PT_INTERP)?;
    if segment.p_filesz(LittleEndian) > MAX_PATH as u64 {
        return None;
    }
    let path = segment.data(LittleEndian, &data).ok()?;
    Some(String::from_utf8_lossy(path.split(|byte| *byte == 0).next()?).into_owned())
}

fn check_script(file: &mut File) -> Result<(), ArtifactError> {
    let mut line = vec![0; MAX_PATH];
    file.seek(SeekFrom::Start(2)).map_err(ArtifactError::FirstLine)?;
    let length = read_up_to(file, &mut line).map_err(ArtifactError::FirstLine)?;
    line.truncate(length);
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = String::from_utf8_lossy(line);
    let interpreter = words.split_ascii_whitespace().next().ok_or(ArtifactError::NoInterpreter)?;
    if !interpreter.starts_with('/') {
        return Err(ArtifactError::RelativeInterpreter(interpreter.to_owned()));
    }
    if !Path::new(interpreter).exists() {
        return Err(ArtifactError::InterpreterMissing(interpreter.to_owned()));
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

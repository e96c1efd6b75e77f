//! Detects the type of a workload from the first bytes of its file, and a program's architecture and operating system.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::WorkloadType;

use crate::check::Usage;

/// Number of bytes inspected.
const MAX_HEAD: u64 = 64 * 1024;

/// Result of the detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sniffed {
    /// Type of the workload.
    pub(crate) r#type: WorkloadType,
    /// Description, for people.
    pub(crate) what: &'static str,
    /// Required architecture, as nodes name it.
    pub(crate) arch: Option<&'static str>,
    /// Required operating system.
    pub(crate) os: Option<&'static str>,
}

impl Sniffed {
    /// What to ask the nodes for.
    pub(crate) fn auction(&self) -> AuctionRequest {
        AuctionRequest {
            arch: self.arch.map(str::to_owned),
            os: self.os.map(str::to_owned),
            workload_types: Some(vec![self.r#type.to_string()]),
            ..AuctionRequest::default()
        }
    }
}

/// Inspects a file. A type given by the user overrides the detected type, but not what a program requires.
pub(crate) fn sniff(path: &Path, named: Option<WorkloadType>) -> anyhow::Result<Sniffed> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}; next: check the path", path.display()))?;
    if file.metadata()?.is_dir() {
        return Err(Usage(format!("{} is a directory; next: give a file", path.display())).into());
    }
    file.take(MAX_HEAD).read_to_end(&mut head).with_context(|| format!("cannot read {}", path.display()))?;
    match (look(&head, path), named) {
        (Ok(found), None) => Ok(found),
        (Ok(found), Some(r#type)) if r#type == WorkloadType::Native => Ok(Sniffed { r#type, ..found }),
        (_, Some(r#type)) => Ok(Sniffed { r#type, what: "a file", arch: None, os: None }),
        (Err(Unfit { what, next }), None) => {
            let why = "nodes run ELF programs, `#!` scripts, WebAssembly, JavaScript and TypeScript";
            Err(Usage(format!("{} is {what}, but {why}; next: {next}", path.display())).into())
        }
    }
}

/// A file that no node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unfit {
    /// What it is, for people.
    what: &'static str,
    /// What there is to do.
    next: &'static str,
}

impl From<&'static str> for Unfit {
    fn from(what: &'static str) -> Self {
        Self { what, next: "give another file, or name its type with --type" }
    }
}

fn look(head: &[u8], path: &Path) -> Result<Sniffed, Unfit> {
    let native = |what, arch, os| Ok(Sniffed { r#type: WorkloadType::Native, what, arch, os });
    let wasm = |what| Ok(Sniffed { r#type: WorkloadType::Wasm, what, arch: None, os: None });
    match head {
        [] => Err(Unfit { what: "empty", next: "give a file with something in it" }),
        [0x7f, b'E', b'L', b'F', ..] => native("an ELF program", elf_arch(head), Some("linux")),
        [b'#', b'!', ..] if ends_lines_as_windows_does(head) => {
            let what = "a script whose lines end as on Windows (CRLF), so that its interpreter would not be found";
            Err(Unfit { what, next: "end its lines as on Linux: `dos2unix` mends it" })
        }
        [b'#', b'!', ..] => native("a script", None, None),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => wasm("a WebAssembly module"),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => wasm("a WebAssembly component"),
        [0, b'a', b's', b'm', ..] => Err("WebAssembly of an unknown version".into()),
        [0xcf, 0xfa, 0xed, 0xfe, kind, ..] => native("a macOS program", macho_arch(*kind), Some("darwin")),
        [b'M', b'Z', ..] => native("a Windows program", pe_arch(head), Some("windows")),
        [0x1f, 0x8b, ..] => Err(Unfit { what: "a gzip archive", next: UNPACK }),
        [b'P', b'K', 3, 4, ..] => Err(Unfit { what: "a zip archive", next: UNPACK }),
        text => text_type(text, path),
    }
}

/// What there is to do with archives of other programs.
const UNPACK: &str = "unpack it, and give the program that is in it";

fn ends_lines_as_windows_does(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').next().is_some_and(|line| line.ends_with(b"\r"))
}

/// What a file is by its name that would be taken for JavaScript by its words.
fn named_otherwise(path: &Path) -> Option<Unfit> {
    let unfit = |what, next| Some(Unfit { what, next });
    match path.extension()?.to_str()? {
        "cts" => unfit("TypeScript of a CommonJS module", "write it as a module, and call it .mts or .ts"),
        "tsx" => unfit("TypeScript with JSX, which has to be compiled to JavaScript first", "compile it, and give the .js file"),
        "jsx" => unfit("JSX, which has to be compiled to JavaScript first", "compile it, and give the .js file"),
        "wat" | "wast" => {
            unfit("WebAssembly as text, which has to be assembled first (`wat2wasm`)", "assemble it, and give the .wasm file")
        }
        "md" | "markdown" | "txt" | "rst" | "adoc" => Some("plain text".into()),
        "html" | "htm" | "css" | "json" | "toml" | "yaml" | "yml" | "xml" | "csv" => Some("a document and no program".into()),
        "rs" | "go" | "c" | "h" | "cc" | "cpp" | "java" | "cs" | "zig" => {
            unfit("source code that has to be compiled first", "compile it, for Linux or to WebAssembly, and give the program")
        }
        "py" | "rb" | "pl" | "sh" | "bash" | "lua" | "php" => unfit(
            "a script without a `#!` line",
            "begin it with that of its interpreter, such as #!/bin/sh or #!/usr/bin/python3",
        ),
        _ => None,
    }
}

/// Whether a file is called as TypeScript is that nodes run.
pub(crate) fn is_typescript(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ts" || extension == "mts")
}

fn text_type(head: &[u8], path: &Path) -> Result<Sniffed, Unfit> {
    let Some(text) = as_text(head) else { return Err("binary data of an unknown kind".into()) };
    if let Some(other) = named_otherwise(path) {
        return Err(other);
    }
    if is_typescript(path) {
        return Ok(Sniffed { r#type: WorkloadType::V8, what: "TypeScript", arch: None, os: None });
    }
    let named = path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "js" | "mjs" | "cjs"));
    let looks = ["=>", "function", "export ", "import ", "const ", "let ", "var ", "class ", "async "];
    if named || looks.iter().any(|part| text.contains(part)) {
        return Ok(Sniffed { r#type: WorkloadType::V8, what: "JavaScript", arch: None, os: None });
    }
    Err("text that does not look like JavaScript".into())
}

/// The bytes as text, if they are UTF-8 without control characters; the last character may be incomplete.
fn as_text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || c.is_whitespace();
    text.chars().all(printable).then_some(text)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn elf_arch(head: &[u8]) -> Option<&'static str> {
    match u16_at(head, 18)? {
        0x3e => Some("amd64"),
        0xb7 => Some("arm64"),
        _ => None,
    }
}

fn macho_arch(kind: u8) -> Option<&'static str> {
    match kind {
        0x07 => Some("amd64"),
        0x0c => Some("arm64"),
        _ => None,
    }
}

/// The machine field; the offset of its header is at 0x3c.
fn pe_arch(head: &[u8]) -> Option<&'static str> {
    let header = usize::from(u16_at(head, 0x3c)?);
    match u16_at(head, header.checked_add(4)?)? {
        0x8664 => Some("amd64"),
        0xaa64 => Some("arm64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], name: &str) -> Result<(WorkloadType, Option<&'static str>, Option<&'static str>), &'static str> {
        look(bytes, Path::new(name)).map(|sniffed| (sniffed.r#type, sniffed.arch, sniffed.os)).map_err(|unfit| unfit.what)
    }

    #[test]
    fn the_type_is_detected_from_the_content() {
        use WorkloadType::{Native, V8, Wasm};
        let mut elf = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
        assert_eq!(found(&elf, "x"), Ok((Native, Some("amd64"), Some("linux"))));
        elf[18] = 0xb7;
        assert_eq!(found(&elf, "x.js"), Ok((Native, Some("arm64"), Some("linux"))));
        assert_eq!(found(b"\x7fELF", "x"), Ok((Native, None, Some("linux"))));
        assert_eq!(found(b"#!/bin/sh\n", "x"), Ok((Native, None, None)));
        assert_eq!(found(b"\0asm\x01\0\0\0", "x"), Ok((Wasm, None, None)));
        assert_eq!(found(b"\0asm\x0d\0\x01\0", "x"), Ok((Wasm, None, None)));
        assert_eq!(found(b"\xcf\xfa\xed\xfe\x0c\0\0\x01", "x"), Ok((Native, Some("arm64"), Some("darwin"))));
        let mut pe = vec![0; 0x90];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x80;
        pe[0x84..0x86].copy_from_slice(&[0x64, 0x86]);
        assert_eq!(found(&pe, "x"), Ok((Native, Some("amd64"), Some("windows"))));
        assert_eq!(found("(s, p) => 'grüße'".as_bytes(), "x"), Ok((V8, None, None)));
        assert_eq!(found(b"1 + 1", "x.js"), Ok((V8, None, None)));
        assert_eq!(found(b"enum A {}", "x.ts"), Ok((V8, None, None)));
        assert_eq!(found(b"export default () => 1", "x.mts"), Ok((V8, None, None)));
        assert!(found(b"export default () => <a/>", "x.tsx").unwrap_err().contains("JSX"));
    }

    #[test]
    fn an_unsupported_file_is_refused_with_what_it_is() {
        for (bytes, expected) in [
            (&b""[..], "empty"),
            (b"hello", "text that does not look like JavaScript"),
            (b"\x1f\x8b\x08", "a gzip archive"),
            (b"a\0b", "binary data of an unknown kind"),
            (b"\0asm\x02\0\0\0", "WebAssembly of an unknown version"),
        ] {
            assert_eq!(found(bytes, "x"), Err(expected));
        }
    }

    #[test]
    fn a_given_type_overrides_the_detected_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        assert!(sniff(file.path(), None).unwrap_err().to_string().contains("--type"));
        assert_eq!(sniff(file.path(), Some(WorkloadType::V8)).unwrap().r#type, WorkloadType::V8);
        assert!(sniff(Path::new("/"), None).is_err());
    }
}

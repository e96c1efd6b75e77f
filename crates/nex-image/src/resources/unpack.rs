//! Extracts a file from a compressed tarball or zip archive. The archives are verified already; the limits guard against our own mistakes.

use std::fs::File;
use std::io::{self, Read, Seek as _};

use flate2::read::GzDecoder;
use zip::ZipArchive;
use zip::result::ZipError;

/// Largest file extracted, in bytes.
const MAX_MEMBER: u64 = 256 * 1024 * 1024;
/// Extracts a member of a `.tgz`, or of a zip archive with any other name.
pub(crate) fn member(archive: &mut File, archive_name: &str, name: &str) -> io::Result<Vec<u8>> {
    if archive_name.ends_with(".tgz") { from_tar(archive, name) } else { from_zip(archive, name) }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {name} in the archive"))
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_MEMBER + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MEMBER { Err(io::Error::other("the file is too large")) } else { Ok(bytes) }
}

fn from_tar(archive: &mut File, name: &str) -> io::Result<Vec<u8>> {
    archive.rewind()?;
    let plain = |path: &[u8]| path.strip_prefix(b"./").unwrap_or(path).to_vec();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() && plain(&entry.path_bytes()) == plain(name.as_bytes()) {
            return bounded(entry);
        }
    }
    Err(missing(name))
}

fn from_zip(archive: &mut File, name: &str) -> io::Result<Vec<u8>> {
    let mut archive = ZipArchive::new(archive)?;
    match archive.by_name(name) {
        Err(ZipError::FileNotFound) => Err(missing(name)),
        member => bounded(member?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::CompressionMethod::{self, Deflated, Stored};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A zip archive with one member.
    fn zip(method: CompressionMethod, content: &[u8], name: &str) -> Vec<u8> {
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn out(bytes: &[u8], archive: &str, name: &str) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        member(&mut file, archive, name)
    }

    #[test]
    fn a_member_comes_out_of_either_kind_of_archive() {
        assert_eq!(out(&zip(Stored, b"stored", "a/b"), "x.whl", "a/b").unwrap(), b"stored");
        assert_eq!(out(&zip(Deflated, b"deflated", "a/b"), "x.whl", "a/b").unwrap(), b"deflated");
        let missing = out(&zip(Stored, b"stored", "a/b"), "x.whl", "a/c").unwrap_err();
        assert_eq!(missing.to_string(), "there is no a/c in the archive");
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, "./ptp", b"code".as_slice()).unwrap();
        let tgz = tar.into_inner().unwrap().finish().unwrap();
        assert_eq!(out(&tgz, "x.tgz", "ptp").unwrap(), b"code");
        assert!(out(&tgz, "x.tgz", "bridge").is_err());
    }

    #[test]
    fn a_corrupt_archive_is_an_error_and_never_a_panic() {
        let good = zip(Deflated, b"deflated", "a/b");
        for at in 0..good.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                drop(out(&bytes, "x.whl", "a/b"));
            }
            drop(out(&good[..at], "x.whl", "a/b"));
        }
    }
}

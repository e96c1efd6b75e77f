//! One file out of an archive: compressed tarballs and zip files. The archives are verified already; the bounds are against our own mistakes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use flate2::read::{DeflateDecoder, GzDecoder};

use crate::bytes::{slice, u16_at, u32_at};

/// Largest file unpacked, in bytes.
const MAX_MEMBER: u64 = 256 * 1024 * 1024;
/// Largest directory of a zip file that is read, in bytes.
const MAX_DIRECTORY: u64 = 16 * 1024 * 1024;

/// A member of a `.tgz`, or of a zip file of any other name.
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

/// Walks the directory at the end of a zip file. Files of 4 GiB and more are not our case.
fn from_zip(archive: &mut File, name: &str) -> io::Result<Vec<u8>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the archive is broken");
    let len = archive.metadata()?.len();
    // The end record is 22 bytes and a comment of at most 65535.
    let tail = read_at(archive, len.saturating_sub(22 + 65_535), 22 + 65_535)?;
    let end = tail.windows(4).rposition(|window| window == b"PK\x05\x06").ok_or_else(broken)? as u64;
    let (size, at) = u32_at(&tail, end + 12).zip(u32_at(&tail, end + 16)).ok_or_else(broken)?;
    let directory = read_at(archive, at.into(), u64::from(size).min(MAX_DIRECTORY))?;
    let mut at = 0;
    while slice(&directory, at, 4) == Some(b"PK\x01\x02") {
        let field = |offset| u16_at(&directory, at + offset).map(u64::from);
        let lengths = field(28).zip(field(30)).zip(field(32)).ok_or_else(broken)?;
        let ((name_len, extra), comment) = lengths;
        if slice(&directory, at + 46, name_len) == Some(name.as_bytes()) {
            let method = field(10).ok_or_else(broken)?;
            let (packed, local) = u32_at(&directory, at + 20).zip(u32_at(&directory, at + 42)).ok_or_else(broken)?;
            let header = read_at(archive, local.into(), 30)?;
            let skip = u16_at(&header, 26).zip(u16_at(&header, 28)).ok_or_else(broken)?;
            archive.seek(SeekFrom::Start(u64::from(local) + 30 + u64::from(skip.0) + u64::from(skip.1)))?;
            let content = archive.take(packed.into());
            return match method {
                0 => bounded(content),
                8 => bounded(DeflateDecoder::new(content)),
                _ => Err(broken()),
            };
        }
        at += 46 + name_len + extra + comment;
    }
    Err(missing(name))
}

fn read_at(file: &mut File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A zip file of one member, as small as one can be.
    fn zip(method: u16, packed: &[u8], name: &str) -> Vec<u8> {
        let (len, name_len) = (u32::try_from(packed.len()).unwrap(), u16::try_from(name.len()).unwrap());
        let mut file = b"PK\x03\x04\x14\0\0\0".to_vec();
        file.extend([method, 0, 0, 0, 0].map(u16::to_le_bytes).concat());
        file.extend([len, 0].map(u32::to_le_bytes).concat());
        file.extend([name_len, 3].map(u16::to_le_bytes).concat());
        file.extend([name.as_bytes(), b"ext", packed].concat());
        let at = u32::try_from(file.len()).unwrap();
        file.extend_from_slice(b"PK\x01\x02\x14\0\x14\0\0\0");
        file.extend([method, 0, 0, 0, 0].map(u16::to_le_bytes).concat());
        file.extend([len, 0].map(u32::to_le_bytes).concat());
        file.extend([name_len, 0, 0, 0, 0, 0, 0].map(u16::to_le_bytes).concat());
        file.extend([0_u32].map(u32::to_le_bytes).concat());
        file.extend_from_slice(name.as_bytes());
        let size = u32::try_from(file.len()).unwrap() - at;
        file.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        file.extend([size, at].map(u32::to_le_bytes).concat());
        file.extend_from_slice(b"\0\0");
        file
    }

    fn out(bytes: &[u8], archive: &str, name: &str) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        member(&mut file, archive, name)
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(bytes).unwrap();
        deflate.finish().unwrap()
    }

    #[test]
    fn a_member_comes_out_of_either_kind_of_archive() {
        assert_eq!(out(&zip(0, b"stored", "a/b"), "x.whl", "a/b").unwrap(), b"stored");
        assert_eq!(out(&zip(8, &deflated(b"deflated"), "a/b"), "x.whl", "a/b").unwrap(), b"deflated");
        assert!(out(&zip(9, b"?", "a/b"), "x.whl", "a/b").is_err());
        let missing = out(&zip(0, b"stored", "a/b"), "x.whl", "a/c").unwrap_err();
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
    fn a_broken_archive_is_an_error_and_never_a_crash() {
        let good = zip(8, &deflated(b"deflated"), "a/b");
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

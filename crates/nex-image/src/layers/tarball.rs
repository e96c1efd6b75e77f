//! Reads a tarball into a list of entries, with long names and pax headers applied, and spools their contents. `layer` applies the
//! entries to a tree.

use std::io::{self, Read};

use nex_erofs::{Kind, Meta};
use tar::{EntryType, Header};

use super::builder::{Devices, ImageBuilder};
use super::layer::{Entry, EntryKind, LayerError};

/// Longest extended header, in bytes; a path has at most 4096.
const MAX_EXTENSION: u64 = 1 << 20;

/// Values of extended headers, for the entry that follows them.
#[derive(Debug, Default)]
struct PaxHeaders {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    size: Option<u64>,
}

/// Reads all entries, in order.
pub(crate) fn read(from: impl Read, builder: &mut ImageBuilder) -> Result<Vec<Entry>, LayerError> {
    let mut archive = tar::Archive::new(from);
    let (mut entries, mut headers) = (Vec::new(), PaxHeaders::default());
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header().clone();
        // Charge every entry: skipped ones are decompressed as well.
        builder.budget.charge(header.entry_size()?)?;
        match header.entry_type() {
            EntryType::GNULongName => headers.path = Some(read_name(&mut entry)?),
            EntryType::GNULongLink => headers.target = Some(read_name(&mut entry)?),
            EntryType::XHeader => headers.extend(&read_extension(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            _ => entries.extend(read_entry(&header, std::mem::take(&mut headers), entry, builder)?),
        }
    }
    Ok(entries)
}

fn read_entry(
    header: &Header,
    headers: PaxHeaders,
    content: impl Read,
    builder: &mut ImageBuilder,
) -> Result<Option<Entry>, LayerError> {
    let path = headers.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let size = header.entry_size()?;
    if headers.size.is_some_and(|declared| declared != size) {
        return Err(
            io::Error::new(io::ErrorKind::InvalidData, "two headers contradict each other about the size of a file").into()
        );
    }
    let target = || headers.target.clone().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let target = || target().filter(|target| !target.is_empty()).ok_or_else(|| LayerError::NoTarget(shown(&path)));
    let device = || Ok::<_, io::Error>((header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default()));
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => EntryKind::Node(Kind::File(builder.spool.append(content, size)?)),
        EntryType::Directory => EntryKind::Node(Kind::Directory),
        EntryType::Symlink => EntryKind::Node(Kind::Symlink(target()?)),
        EntryType::Link => EntryKind::HardLink(target()?),
        EntryType::Char | EntryType::Block if builder.devices == Devices::None => {
            // Those of `/dev` are the sandbox's own, whatever an image has there.
            return if is_in_dev(&path) { Ok(None) } else { Err(LayerError::Device(shown(&path))) };
        }
        EntryType::Char => device().map(|(major, minor)| EntryKind::Node(Kind::CharDevice { major, minor }))?,
        EntryType::Block => device().map(|(major, minor)| EntryKind::Node(Kind::BlockDevice { major, minor }))?,
        EntryType::Fifo => EntryKind::Node(Kind::Fifo),
        EntryType::GNUSparse => return Err(LayerError::Sparse(shown(&path))),
        // POSIX: skip unknown types.
        _ => return Ok(None),
    };
    let target = match &kind {
        EntryKind::Node(Kind::Symlink(target)) | EntryKind::HardLink(target) => target.len(),
        EntryKind::Node(_) => 0,
    };
    builder.budget.charge_name(path.len() + target)?;
    let owner = |id: u64| u32::try_from(id).map_err(|source| LayerError::Owner { path: shown(&path), source });
    let meta = Meta {
        mode: u16::try_from(header.mode()? & 0o7777).unwrap_or_default(),
        uid: owner(headers.uid.map_or_else(|| header.uid(), Ok)?)?,
        gid: owner(headers.gid.map_or_else(|| header.gid(), Ok)?)?,
        mtime: builder.time(headers.mtime.map_or_else(|| header.mtime(), Ok)?),
    };
    Ok(Some(Entry { path, meta, kind }))
}

fn is_in_dev(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.next() == Some(b"dev") && parts.all(|part| part != b"..")
}

impl PaxHeaders {
    /// Parses pax records: `LEN KEY=VALUE\n`.
    fn extend(&mut self, mut records: &[u8]) -> Result<(), LayerError> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "a pax header is broken");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let len =
                number(records.get(..space).unwrap_or_default()).and_then(|len| usize::try_from(len).ok()).ok_or_else(broken)?;
            let record = records.get(space + 1..len.wrapping_sub(1)).ok_or_else(broken)?;
            records = records.get(len..).ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let (key, value) = (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"uid" => self.uid = Some(number(value).ok_or_else(broken)?),
                b"gid" => self.gid = Some(number(value).ok_or_else(broken)?),
                b"size" => self.size = Some(number(value).ok_or_else(broken)?),
                // Times before 1970 become 1970; fractions are dropped.
                b"mtime" => self.mtime = Some(number(value.split(|byte| *byte == b'.').next().unwrap_or_default()).unwrap_or(0)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn read_extension(entry: &mut impl Read) -> Result<Vec<u8>, LayerError> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_EXTENSION {
        Err(LayerError::TooMuch { what: "bytes of an extended header", most: MAX_EXTENSION })
    } else {
        Ok(bytes)
    }
}

/// Reads a GNU long name, which ends with a NUL.
fn read_name(entry: &mut impl Read) -> Result<Vec<u8>, LayerError> {
    let mut bytes = read_extension(entry)?;
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    Ok(bytes)
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use nex_erofs::Tree;
    use tar::Builder;

    use super::*;
    use crate::layers::spool::{Budget, Limits, Spool};

    /// A tarball of empty entries of these types.
    fn tarball(kinds: &[EntryType], name: &str) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for kind in kinds {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_path(name).unwrap();
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn read_with(budget: Budget, bytes: &[u8]) -> Result<usize, LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create_beside(&dir.path().join("image")).unwrap();
        let mut builder =
            ImageBuilder { tree: Tree::new(Meta::root(0o755)), spool, budget, latest: None, devices: Devices::Keep };
        read(bytes, &mut builder).map(|entries| entries.len())
    }

    #[test]
    fn extended_headers_and_names_are_charged_to_the_budget() {
        let budget = |entries, names| Budget::new(Limits { bytes: 1 << 20, entries, names });
        let extensions = tarball(&[EntryType::XGlobalHeader; 9], "pax");
        assert_eq!(read_with(budget(9, 0), &extensions).unwrap(), 0);
        assert!(matches!(read_with(budget(8, 0), &extensions), Err(LayerError::TooMuch { most: 8, .. })));
        let directories = tarball(&[EntryType::Directory; 3], "ten-bytes/");
        assert_eq!(read_with(budget(3, 30), &directories).unwrap(), 3);
        assert!(matches!(read_with(budget(3, 29), &directories), Err(LayerError::TooMuch { most: 29, .. })));
    }
}

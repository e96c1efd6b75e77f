//! The files of the history: a ring of segments for each namespace and kind, all of them together bounded in bytes.
//!
//! Where there are too many bytes, the largest ring gives up its oldest segment: whoever writes much loses his own lines before anybody
//! else does, and a flood of lines pushes out no event.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nex_protocol::id::Namespace;
use nex_protocol::subject::HistoryKind;

use super::record;

/// What a file takes on a disk at least, bytes.
const BLOCK: u64 = 4_096;
/// Parts that the bytes are divided into, and the bounds of a segment that follow from it.
const PARTS: u64 = 32;
const SEGMENT: (u64, u64) = (16 * 1024, 1024 * 1024);
/// Longest file looked at, bytes: a segment and its last record.
pub(super) const LONGEST: u64 = 2 * SEGMENT.1;

/// Whose records of which kind: those of one ring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RingName {
    pub(super) namespace: Namespace,
    pub(super) kind: HistoryKind,
}

impl RingName {
    fn directory(&self) -> String {
        format!("{}.{}", self.namespace, self.kind.as_str())
    }

    fn parse(directory: &str) -> Option<Self> {
        let (namespace, kind) = directory.rsplit_once('.')?;
        Some(Self { namespace: namespace.parse().ok()?, kind: HistoryKind::parse(kind)? })
    }
}

/// A file of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Number of its first record.
    pub(super) first: u64,
    /// Where it is.
    pub(super) path: PathBuf,
    bytes: u64,
}

impl Segment {
    fn cost(&self) -> u64 {
        self.bytes.max(1).next_multiple_of(BLOCK)
    }
}

#[derive(Debug, Default)]
struct Ring {
    segments: VecDeque<Segment>,
    cost: u64,
    /// Whether its last segment takes more; one that an earlier process wrote, or where a write failed, may end within a record.
    is_open: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    limit: u64,
    segment: u64,
    rings: BTreeMap<RingName, Ring>,
    cost: u64,
    /// Largest number that was found.
    pub(super) newest: u64,
}

impl Files {
    /// Nothing, to be kept in a directory.
    pub(super) fn none(root: PathBuf, limit: u64) -> Self {
        let segment = (limit / PARTS).clamp(SEGMENT.0, SEGMENT.1);
        Self { root, limit, segment, rings: BTreeMap::new(), cost: 0, newest: 0 }
    }

    /// What is in a directory, within so many bytes.
    pub(super) fn open(root: PathBuf, limit: u64) -> io::Result<Self> {
        let mut files = Self::none(root, limit);
        let entries = match fs::read_dir(&files.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(RingName::parse) else { continue };
            let ring = Ring::open(&entry.path())?;
            files.cost += ring.cost;
            if let Some(last) = ring.segments.back() {
                files.newest = files.newest.max(last.newest());
            }
            files.rings.insert(name, ring);
        }
        files.bound();
        Ok(files)
    }

    /// Appends records, the first of which has this number; what exceeds the limit goes.
    pub(super) fn append(&mut self, name: &RingName, first: u64, records: &[u8], is_durable: bool) -> io::Result<()> {
        let ring = self.rings.entry(name.clone()).or_default();
        let before = ring.cost;
        let written = ring.append(&self.root.join(name.directory()), (first, self.segment), records, is_durable);
        self.cost = self.cost - before + ring.cost;
        self.bound();
        written
    }

    /// The segments of a ring, in order.
    pub(super) fn segments(&self, name: &RingName) -> Vec<Segment> {
        self.rings.get(name).map(|ring| ring.segments.iter().cloned().collect()).unwrap_or_default()
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.cost
    }

    /// Most bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    fn bound(&mut self) {
        while self.cost > self.limit {
            let largest = self.rings.iter_mut().max_by_key(|(_, ring)| ring.cost);
            let Some((name, ring)) = largest else { return };
            let Some(oldest) = ring.segments.pop_front() else { return };
            self.cost -= oldest.cost();
            ring.cost -= oldest.cost();
            if let Err(error) = fs::remove_file(&oldest.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %oldest.path.display(), %error, "an old file of the history cannot be removed");
            }
            if ring.segments.is_empty() {
                fs::remove_dir(self.root.join(name.directory())).ok();
                let name = name.clone();
                self.rings.remove(&name);
            }
        }
    }
}

impl Ring {
    fn open(directory: &Path) -> io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let first = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            let Some(first) = first else { continue };
            segments.push(Segment { first, path: entry.path(), bytes: entry.metadata()?.len() });
        }
        segments.sort_by_key(|segment| segment.first);
        let cost = segments.iter().map(Segment::cost).sum();
        Ok(Self { segments: segments.into(), cost, is_open: false })
    }

    fn append(&mut self, directory: &Path, (first, most): (u64, u64), records: &[u8], is_durable: bool) -> io::Result<()> {
        let needs_new = !self.is_open || self.segments.back().is_none_or(|last| last.bytes >= most);
        if needs_new {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let path = directory.join(format!("{first:020}.log"));
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            self.segments.push_back(Segment { first, path, bytes: 0 });
            self.cost += BLOCK;
        }
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        // Whatever comes of it: after a failure the next record begins a new segment.
        self.is_open = false;
        let (cost, whole) = (last.cost(), last.bytes);
        let opened = OpenOptions::new().append(true).open(&last.path);
        let written = opened.and_then(|mut file| {
            let written = file.write_all(records).and_then(|()| if is_durable { file.sync_data() } else { Ok(()) });
            if written.is_err() {
                // A full disk takes a part: that is of no use, and its room is needed.
                file.set_len(whole).ok();
            }
            last.bytes = file.metadata().map_or(last.bytes, |found| found.len());
            written
        });
        self.cost = self.cost - cost + last.cost();
        self.is_open = written.is_ok();
        if written.is_err() && last.bytes == 0 && fs::remove_file(&last.path).is_ok() {
            // Else a full disk would be filled with empty segments, and what is kept pushed out by them.
            self.cost -= last.cost();
            self.segments.pop_back();
        }
        written
    }
}

impl Segment {
    /// Its largest number.
    fn newest(&self) -> u64 {
        let text = fs::read(&self.path).unwrap_or_default();
        let whole = text.split(|byte| *byte == b'\n').rev().find(|line| record::read::<serde::de::IgnoredAny>(line).is_some());
        whole.and_then(record::number).unwrap_or(self.first).max(self.first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1024 * 1024;

    fn name(namespace: &str, kind: HistoryKind) -> RingName {
        RingName { namespace: namespace.parse().unwrap(), kind }
    }

    fn on_disk(root: &Path) -> u64 {
        let rings = fs::read_dir(root).into_iter().flatten().flatten().flat_map(|ring| fs::read_dir(ring.path()).unwrap());
        rings.map(|file| file.unwrap().metadata().unwrap().len().max(1).next_multiple_of(BLOCK)).sum()
    }

    #[test]
    fn who_writes_much_loses_his_own_and_no_line_pushes_out_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path().to_owned(), LIMIT).unwrap();
        let (events, quiet) = (name("loud", HistoryKind::Events), name("quiet", HistoryKind::Logs));
        files.append(&events, 1, b"event\n", true).unwrap();
        files.append(&quiet, 2, b"line\n", false).unwrap();
        let loud = name("loud", HistoryKind::Logs);
        for seq in 3..1_000 {
            files.append(&loud, seq, &[b'x'; 10_000], false).unwrap();
        }
        assert_eq!((files.segments(&events).len(), files.segments(&quiet).len()), (1, 1));
        assert!(files.segments(&loud)[0].first > 800 && files.bytes() > LIMIT * 9 / 10, "{}", files.bytes());
        assert_eq!((files.bytes(), on_disk(dir.path())), (files.cost, files.cost));
        let again = Files::open(dir.path().to_owned(), LIMIT / 2).unwrap();
        assert!(again.bytes() <= LIMIT / 2 && again.segments(&quiet).len() == 1);
    }

    #[test]
    fn what_was_torn_is_left_alone_and_a_new_segment_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (mut out, ring) = (Vec::new(), name("a", HistoryKind::Logs));
        record::write(41, &"whole", &mut out);
        out.extend_from_slice(b"0123 42 \"tor");
        Files::open(dir.path().to_owned(), LIMIT).unwrap().append(&ring, 41, &out, false).unwrap();
        let mut files = Files::open(dir.path().to_owned(), LIMIT).unwrap();
        assert_eq!(files.newest, 41);
        files.append(&ring, 50, b"next\n", false).unwrap();
        files.append(&ring, 51, b"more\n", false).unwrap();
        let firsts: Vec<u64> = files.segments(&ring).iter().map(|segment| segment.first).collect();
        assert_eq!(firsts, [41, 50]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_is_written_the_bytes_are_bounded_and_counted_right(
            writes in prop::collection::vec((0_usize..4, 1_usize..40_000, any::<bool>()), 1..60), reopen in 0_usize..60,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let limit = 256 * 1024;
            let mut files = Files::open(dir.path().to_owned(), limit).unwrap();
            for (number, (namespace, bytes, is_event)) in writes.into_iter().enumerate() {
                if number == reopen {
                    files = Files::open(dir.path().to_owned(), limit).unwrap();
                }
                let kind = if is_event { HistoryKind::Events } else { HistoryKind::Logs };
                let ring = name(["a", "b", "c", "d"][namespace], kind);
                files.append(&ring, number as u64, &vec![b'x'; bytes], false).unwrap();
                prop_assert!(files.bytes() <= limit);
                prop_assert_eq!(files.bytes(), on_disk(dir.path()));
                let sum: u64 = files.rings.values().map(|ring| ring.cost).sum();
                prop_assert_eq!(sum, files.bytes());
            }
        }
    }
}

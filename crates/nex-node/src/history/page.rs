//! A page of a ring: which records a request wants, read from its segments, bounded in bytes read and in bytes answered.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

use nex_protocol::control::{HistoryRecord, HistoryRequest};
use serde::de::DeserializeOwned;

use super::files::{LONGEST, Segment};
use super::record;

/// Most bytes of records in one page, which has to fit into a message.
const PAGE: usize = 192 * 1024;
/// Bytes read for one page, after which the asker has to ask again; for a search of the last ones, after which it ends.
const READ: u64 = 16 * 1024 * 1024;
const SEARCHED: u64 = 64 * 1024 * 1024;
/// Most last records searched for.
const TAIL: usize = 100_000;

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) records: Vec<T>,
    /// The number after which the next page begins.
    pub(super) next: Option<u64>,
    pub(super) damaged: u64,
    pub(super) is_cut: bool,
}

/// Reads the page that a request asks for. `until` is the largest number that it may have.
pub(super) fn read<T: HistoryRecord + DeserializeOwned>(
    segments: &[Segment],
    mut request: HistoryRequest,
    until: u64,
) -> Page<T> {
    request.until = Some(request.until.unwrap_or(until).min(until));
    let mut is_cut = false;
    if let Some(tail) = request.tail.take() {
        let begin = last::<T>(segments, &request, tail.min(TAIL));
        is_cut = begin.1;
        request.after = Some(begin.0);
    }
    Page { is_cut, ..forward(segments, &request) }
}

/// The number after which the last ones begin, so many, and whether the search for them ended early.
fn last<T: HistoryRecord + DeserializeOwned>(segments: &[Segment], request: &HistoryRequest, tail: usize) -> (u64, bool) {
    let (mut found, mut read, mut first) = (0, 0, request.until.unwrap_or(u64::MAX));
    for (index, segment) in segments.iter().enumerate().rev() {
        if read >= SEARCHED {
            return (first.saturating_sub(1), true);
        }
        let Some(text) = text(&segment.path, request.since_ms) else { continue };
        read += text.len() as u64;
        let wanted = lines(&text).filter_map(record::read::<T>).filter(|record| request.wants(record));
        let numbers: Vec<u64> = wanted.map(|record| record.seq()).collect();
        if found + numbers.len() >= tail {
            let at = found + numbers.len() - tail;
            return (numbers.get(at).map_or(first, |number| number.saturating_sub(1)), false);
        }
        found += numbers.len();
        first = numbers.first().copied().unwrap_or(first);
        let is_passed = |after: u64| segment.first <= after;
        if index == 0 || request.after.is_some_and(is_passed) {
            break;
        }
    }
    (request.after.unwrap_or(0).max(first.saturating_sub(1)), false)
}

fn forward<T: HistoryRecord + DeserializeOwned>(segments: &[Segment], request: &HistoryRequest) -> Page<T> {
    let after = request.after.unwrap_or(0);
    let mut page = Page { records: Vec::new(), next: None, damaged: 0, is_cut: false };
    let (mut bytes, mut read) = (0, 0);
    for (index, segment) in segments.iter().enumerate() {
        let following = segments.get(index + 1).map(|next| next.first);
        if following.is_some_and(|first| first <= after.saturating_add(1)) {
            continue;
        }
        if request.until.is_some_and(|until| segment.first > until) {
            break;
        }
        if read >= READ {
            page.next = Some(segment.first.saturating_sub(1));
            break;
        }
        let Some(text) = text(&segment.path, request.since_ms) else { continue };
        read += text.len() as u64;
        // Damage before what was asked for was told with an earlier page.
        let mut has_begun = segment.first > after;
        for line in lines(&text) {
            if record::number(line).is_some_and(|number| number <= after) {
                continue;
            }
            let Some(record) = record::read::<T>(line) else {
                page.damaged += u64::from(has_begun);
                continue;
            };
            has_begun = true;
            if !request.wants(&record) {
                continue;
            }
            if bytes + line.len() > PAGE && !page.records.is_empty() {
                page.next = page.records.last().map(HistoryRecord::seq);
                return page;
            }
            bytes += line.len();
            page.records.push(record);
        }
    }
    page
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The text of a segment; nothing where it is all older than what is asked for, or gone.
fn text(path: &Path, since_ms: Option<i64>) -> Option<Vec<u8>> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = File::open(path)?;
        let changed = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        // What was written last was written then.
        if since_ms.is_some_and(|since| i64::try_from(changed.as_millis()).is_ok_and(|changed| changed < since)) {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(Some(text))
    };
    match read() {
        Ok(text) => text,
        // It was the oldest, and its room is needed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of the history cannot be read");
            None
        }
    }
}

//! What an arena held when its script was loaded, and how it is put back after a call.
//!
//! The arena becomes a private view of a file that holds the image, with untouched memory behind it. A page that a call writes becomes
//! the process's own; the kernel tells which these are, and they are overwritten with what they were. They stay the process's own, so a
//! page costs a fault once and a copy after each call. Now and then, and after a call that wrote much, all of them are given back.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

use crate::pagemap::{PageRun, Pagemap};
use crate::region::{PAGE_BYTES, Region, whole_pages};

/// Above this many private pages, giving them back is cheaper than copying.
const MAX_COPIED_PAGES: usize = 1024;
/// Runs of pages that a scan reports; more than this many are given back.
const MAX_RUNS: usize = 512;
/// After this many copies the pages are given back, so that one large call is not paid for by all that follow.
const COPIES_PER_RELEASE: u32 = 256;

/// How an arena is put back after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restore {
    /// The kernel tells which pages were written (`PAGEMAP_SCAN`); they are copied back.
    CopyWritten,
    /// All written pages are given back to the kernel, because this one cannot tell which they are. Slower by tens of microseconds.
    ForgetWritten,
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CopyWritten => "written pages are copied back",
            Self::ForgetWritten => "written pages are dropped, as this kernel or /proc does not tell which they are",
        })
    }
}

/// Opened once, since a process that hides its memory can do so only while it is visible.
static PAGEMAP: OnceLock<Option<Pagemap>> = OnceLock::new();

/// Opens what restoring needs from `/proc`, the first time; tells how arenas will be restored.
pub fn prepare() -> Restore {
    match PAGEMAP.get_or_init(|| Pagemap::open().ok()) {
        Some(_) => Restore::CopyWritten,
        None => Restore::ForgetWritten,
    }
}

pub(crate) struct Image {
    /// `used` bytes of the arena's start, then its last page.
    saved: Region,
    used: usize,
    runs: Vec<PageRun>,
    copies: u32,
    way: Restore,
}

impl Image {
    /// Makes an image of the arena, of which everything behind the first `used` bytes is zero but for the last page.
    pub(crate) fn take(arena: &mut Region, used: usize, way: Restore) -> io::Result<Self> {
        let last = arena.bytes() - PAGE_BYTES;
        let used = whole_pages(used);
        if used > last {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Writing more than the process may would end it by a signal.
        let (allowed, _hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
        if allowed < (used + PAGE_BYTES) as u64 {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the script's memory after loading is larger than a file may be",
            ));
        }
        let file = File::from(memfd_create(c"nex-js-image", MFdFlags::MFD_CLOEXEC)?);
        file.write_all_at(read(arena, 0, used), 0)?;
        file.write_all_at(read(arena, last, PAGE_BYTES), used as u64)?;
        arena.show_file(0, used, &file, 0)?;
        arena.show_file(last, PAGE_BYTES, &file, used)?;
        // What lies between was never written, or freed again before: it starts as zeros.
        let saved = Region::read_only(&file, used + PAGE_BYTES)?;
        let mut image = Self { saved, used, runs: vec![PageRun::default(); MAX_RUNS], copies: 0, way };
        image.release(arena)?;
        Ok(image)
    }

    /// Makes the arena what it was.
    pub(crate) fn restore(&mut self, arena: &mut Region) -> io::Result<()> {
        let pagemap = match self.way {
            Restore::CopyWritten => PAGEMAP.get().and_then(Option::as_ref),
            Restore::ForgetWritten => None,
        };
        self.copies += 1;
        let Some(pagemap) = pagemap.filter(|_| self.copies < COPIES_PER_RELEASE) else { return self.release(arena) };
        let mut runs = std::mem::take(&mut self.runs);
        let written = pagemap.written(arena.address(), arena.address() + arena.bytes(), &mut runs);
        // What cannot be copied back is given back, which needs no knowledge of it.
        let copied = written.is_ok_and(|written| written.is_some_and(|written| self.copy_back(arena, written)));
        self.runs = runs;
        if copied { Ok(()) } else { self.release(arena) }
    }

    /// Forgets every written page.
    fn release(&mut self, arena: &mut Region) -> io::Result<()> {
        self.copies = 0;
        arena.forget_pages()
    }

    /// Copies the runs back, unless they are too many.
    fn copy_back(&self, arena: &mut Region, written: &[PageRun]) -> bool {
        let (base, last) = (arena.address(), arena.bytes() - PAGE_BYTES);
        let ranges = || written.iter().map(|run| to_range(base, run));
        let pages: usize = ranges().map(|range| range.map_or(0, |(_, bytes)| bytes / PAGE_BYTES)).sum();
        if pages > MAX_COPIED_PAGES {
            return false;
        }
        for range in ranges() {
            let Some((at, bytes)) = range.filter(|(at, bytes)| arena.contains(*at, *bytes)) else { return false };
            let end = at + bytes;
            // The three parts of the arena: image, zeros, last page.
            write(arena, at, (end.min(self.used)).saturating_sub(at), Source::Saved(&self.saved, at));
            let zeros = at.max(self.used);
            write(arena, zeros, end.min(last).saturating_sub(zeros), Source::Zeros);
            if end > last {
                write(arena, last, PAGE_BYTES, Source::Saved(&self.saved, self.used));
            }
        }
        true
    }
}

/// Offset in the arena and length.
fn to_range(base: usize, run: &PageRun) -> Option<(usize, usize)> {
    let (start, end) = (usize::try_from(run.start).ok()?, usize::try_from(run.end).ok()?);
    Some((start.checked_sub(base)?, end.checked_sub(start)?))
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Saved(&'a Region, usize),
    Zeros,
}

#[expect(unsafe_code, reason = "an arena is memory that the engine writes, too")]
fn write(arena: &mut Region, at: usize, bytes: usize, source: Source<'_>) {
    if bytes == 0 || !arena.contains(at, bytes) {
        return;
    }
    // SAFETY: `at` was found to be inside the region.
    let target = unsafe { arena.base().as_ptr().add(at) };
    match source {
        Source::Saved(saved, from) if saved.contains(from, bytes) => {
            // SAFETY: `from` was found to be inside the region.
            let from = unsafe { saved.base().as_ptr().add(from) };
            // SAFETY: both ranges were found to be inside their regions, which are different mappings; the arena is borrowed exclusively, and no
            // reference into it is alive while its engine does not run.
            unsafe { ptr::copy_nonoverlapping(from, target, bytes) };
        }
        Source::Saved(..) => {}
        // SAFETY: as above.
        Source::Zeros => unsafe { ptr::write_bytes(target, 0, bytes) },
    }
}

/// The bytes of a part of the arena.
#[expect(unsafe_code, reason = "an arena is memory that the engine writes, too")]
pub(crate) fn read(arena: &Region, at: usize, bytes: usize) -> &[u8] {
    assert!(arena.contains(at, bytes), "a part of the arena");
    // SAFETY: `at` was found to be inside the region.
    let start = unsafe { arena.base().as_ptr().add(at) };
    // SAFETY: the range is mapped and readable as long as the region is borrowed; its engine, which runs on this thread, does not run meanwhile.
    unsafe { slice::from_raw_parts(start, bytes) }
}

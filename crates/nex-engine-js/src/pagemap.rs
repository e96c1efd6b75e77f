//! Asks the kernel which pages of a private mapping were written: the `PAGEMAP_SCAN` request, Linux 6.7 and newer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::ioctl_readwrite;

/// A run of pages.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PageRun {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Debug, Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    runs: u64,
    runs_capacity: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO: u64 = 1 << 5;

ioctl_readwrite!(pagemap_scan, b'f', 16, Scan);

/// This process's page map.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    /// Opens it. A process that hides its memory cannot, but what it opened before stays usable.
    pub(crate) fn open() -> io::Result<Self> {
        let pagemap = Self(File::open("/proc/self/pagemap")?);
        // An empty range, to learn whether the kernel knows the request.
        pagemap.written(0, 0, &mut [PageRun::default()])?;
        Ok(pagemap)
    }

    /// The runs of pages in `start..end` that are private: neither the mapped file's nor the zero page. `None` if there are more runs
    /// than fit.
    #[expect(unsafe_code, reason = "the request has no safe wrapper")]
    pub(crate) fn written<'a>(&self, start: usize, end: usize, runs: &'a mut [PageRun]) -> io::Result<Option<&'a [PageRun]>> {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            start: start as u64,
            end: end as u64,
            runs: runs.as_mut_ptr().addr() as u64,
            runs_capacity: runs.len() as u64,
            inverted: FILE | ZERO,
            mask: FILE | ZERO,
            any_of: PRESENT | SWAPPED,
            ..Scan::default()
        };
        // SAFETY: `scan` is the request's structure with its size; the kernel writes at most `runs_capacity` entries into `runs`, which
        // is borrowed exclusively and outlives the call.
        let found = unsafe { pagemap_scan(self.0.as_raw_fd(), &raw mut scan) }?;
        let found = usize::try_from(found).map_err(io::Error::other)?;
        Ok(if scan.walk_end == scan.end { runs.get(..found) } else { None })
    }
}

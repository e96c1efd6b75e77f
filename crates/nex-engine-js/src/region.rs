//! A mapping of memory that this process owns, at an address that does not change.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::libc::off_t;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// The unit of mappings: the largest page that the architecture may have.
pub(crate) const PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65_536 };

/// Mapped memory; dropped, it is unmapped.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: NonZeroUsize,
}

impl Region {
    /// Reserves zeroed memory, which costs nothing until it is written. Never in huge pages: one byte would dirty two megabytes.
    #[expect(unsafe_code, reason = "mappings have no safe wrapper")]
    pub(crate) fn reserve(bytes: usize) -> io::Result<Self> {
        let bytes = length(bytes)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let base = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        let region = Self { base: base.cast(), bytes };
        // A kernel without huge pages does not know the advice, and needs none.
        let _unknown = region.advise(MmapAdvise::MADV_NOHUGEPAGE);
        Ok(region)
    }

    /// Maps the first `bytes` of a file, to be read.
    #[expect(unsafe_code, reason = "mappings have no safe wrapper")]
    pub(crate) fn read_only(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        let bytes = length(bytes)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ, flags, file, 0) }?;
        Ok(Self { base: base.cast(), bytes })
    }

    /// Replaces `bytes` from `at` by a private view of the file from `offset`: what is written there is not written to the file.
    #[expect(unsafe_code, reason = "mappings have no safe wrapper")]
    pub(crate) fn show_file(&mut self, at: usize, bytes: usize, file: impl AsFd, offset: usize) -> io::Result<()> {
        if !self.contains(at, bytes) || !at.is_multiple_of(PAGE_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let address = NonZeroUsize::MIN.saturating_add(self.address() + at - 1);
        let offset = off_t::try_from(offset).map_err(io::Error::other)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        // SAFETY: the range lies inside this region, which is borrowed exclusively, so only memory of ours is replaced, and the
        // caller gives it a file of the same contents.
        unsafe { mmap(Some(address), length(bytes)?, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, file, offset) }?;
        Ok(())
    }

    /// Forgets all private pages: the memory is again what was mapped, file or zeros.
    pub(crate) fn forget_pages(&mut self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DONTNEED)
    }

    #[expect(unsafe_code, reason = "advice has no safe wrapper")]
    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: the range is this region; what the advice does to its contents is what the callers in this file want.
        unsafe { madvise(self.base.cast(), self.bytes.get(), advice) }?;
        Ok(())
    }

    /// Whether `bytes` from `at` lie inside.
    pub(crate) fn contains(&self, at: usize, bytes: usize) -> bool {
        at.checked_add(bytes).is_some_and(|end| end <= self.bytes.get())
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn address(&self) -> usize {
        self.base.addr().get()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl Drop for Region {
    #[expect(unsafe_code, reason = "mappings have no safe wrapper")]
    fn drop(&mut self) {
        // SAFETY: the region was mapped by this type with this length, and nobody can refer to it any more. It fails for no valid range.
        let _never = unsafe { munmap(self.base.cast(), self.bytes.get()) };
    }
}

fn length(bytes: usize) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(bytes).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The number rounded up to whole pages.
pub(crate) fn whole_pages(bytes: usize) -> usize {
    bytes.saturating_add(PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES
}

//! The memory of one JavaScript runtime: all of it in one region, the allocator's state included, so that whoever puts the region back
//! puts back everything.

use std::alloc::Layout;
use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

use rlsf::Tlsf;
use rquickjs::qjs::{JSMallocFunctions, size_t};

use crate::image::{Image, Restore};
use crate::region::{PAGE_BYTES, Region, whole_pages};

/// What the engine aligns its largest values to.
const ALIGN: usize = 16;
/// What an allocator writes behind a block: the header of the next one.
const HEADER_BYTES: usize = 64;
/// Most that an arena reserves, in bytes.
const MAX_BYTES: usize = 4 << 30;

type Blocks = Tlsf<'static, u32, u16, 28, 16>;

/// Stands at the start of the arena.
#[repr(C)]
struct Heap {
    blocks: Blocks,
    /// Offset behind which nothing was ever written.
    top: usize,
    base: usize,
}

/// The memory of a runtime.
pub(crate) struct Arena {
    // Dropped before the region it was taken of.
    image: Option<Image>,
    region: Region,
}

impl Arena {
    /// Reserves memory in which `bytes` can be allocated; a quarter more, as no allocator is without loss.
    #[expect(unsafe_code, reason = "puts the allocator into the memory it manages")]
    pub(crate) fn reserve(bytes: usize) -> io::Result<Self> {
        let region = Region::reserve(whole_pages(bytes.saturating_add(bytes / 4).min(MAX_BYTES)))?;
        let start = whole_pages(size_of::<Heap>());
        let Some(room) = region.bytes().checked_sub(start).filter(|room| *room > PAGE_BYTES) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let heap = region.base().cast::<Heap>();
        let fresh = Heap { blocks: Blocks::new(), top: start + HEADER_BYTES, base: region.address() };
        // SAFETY: the region is writable, aligned to a page and larger than a `Heap`.
        unsafe { heap.write(fresh) };
        // SAFETY: `start` is inside the region.
        let pool = unsafe { region.base().add(start) };
        // SAFETY: the `Heap` was just written, and nothing else refers to it.
        let heap = unsafe { &mut *heap.as_ptr() };
        // SAFETY: the pool is mapped, nobody else's, and lives as long as the allocator, which lies in the same region.
        unsafe { heap.blocks.insert_free_block_ptr(NonNull::slice_from_raw_parts(pool, room)) }
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { image: None, region })
    }

    /// What the engine is given as its allocator, with [`Self::opaque`].
    pub(crate) const FUNCTIONS: JSMallocFunctions = JSMallocFunctions {
        js_calloc: Some(calloc),
        js_malloc: Some(malloc),
        js_free: Some(free),
        js_realloc: Some(realloc),
        js_malloc_usable_size: Some(usable_size),
    };

    pub(crate) fn opaque(&self) -> *mut c_void {
        self.region.base().as_ptr().cast()
    }

    /// Makes the present contents the image.
    #[expect(unsafe_code, reason = "reads the allocator's state")]
    pub(crate) fn take_image(&mut self, way: Restore) -> io::Result<()> {
        // SAFETY: `reserve` has put a `Heap` here, and the engine does not run while the arena is borrowed exclusively.
        let top = unsafe { (*self.region.base().cast::<Heap>().as_ptr()).top };
        self.image = Some(Image::take(&mut self.region, top, way)?);
        Ok(())
    }

    /// Puts the image back. Whoever gets an error must not use the arena again.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        let image = self.image.as_mut().ok_or(io::ErrorKind::NotFound)?;
        image.restore(&mut self.region)
    }

    /// Everything in it.
    pub(crate) fn contents(&self) -> &[u8] {
        crate::image::read(&self.region, 0, self.region.bytes())
    }
}

/// The heap that an engine was given as its opaque pointer.
///
/// # Safety
/// `opaque` comes from [`Arena::opaque`], the arena is alive, and no other reference to the heap is.
#[expect(unsafe_code, reason = "the engine hands back a pointer")]
unsafe fn heap<'a>(opaque: *mut c_void) -> &'a mut Heap {
    // SAFETY: the caller's promise.
    unsafe { &mut *opaque.cast::<Heap>() }
}

impl Heap {
    /// Remembers how far memory was written; null for nothing.
    fn given(&mut self, block: Option<NonNull<u8>>) -> *mut c_void {
        let Some(block) = block else { return ptr::null_mut() };
        let end = block.addr().get() - self.base + usable(block);
        self.top = self.top.max(end + HEADER_BYTES);
        block.as_ptr().cast()
    }
}

#[expect(unsafe_code, reason = "the allocator's functions take pointers")]
fn usable(block: NonNull<u8>) -> usize {
    // SAFETY: only called with blocks that the allocator has just given or that the engine holds.
    unsafe { Blocks::allocation_usable_size(block) }
}

fn layout(bytes: size_t) -> Option<Layout> {
    Layout::from_size_align(usize::try_from(bytes).ok()?, ALIGN).ok()
}

#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn malloc(opaque: *mut c_void, bytes: size_t) -> *mut c_void {
    // SAFETY: the engine passes what it was given with these functions, and calls one at a time.
    let heap = unsafe { heap(opaque) };
    let block = layout(bytes).and_then(|layout| heap.blocks.allocate(layout));
    heap.given(block)
}

#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn calloc(opaque: *mut c_void, count: size_t, bytes: size_t) -> *mut c_void {
    let Some(bytes) = count.checked_mul(bytes) else { return ptr::null_mut() };
    // SAFETY: as the engine called this function.
    let block = unsafe { malloc(opaque, bytes) };
    if let (Ok(bytes), false) = (usize::try_from(bytes), block.is_null()) {
        // SAFETY: the block has at least this many bytes.
        unsafe { ptr::write_bytes(block.cast::<u8>(), 0, bytes) };
    }
    block
}

#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn free(opaque: *mut c_void, block: *mut c_void) {
    let Some(block) = NonNull::new(block.cast()) else { return };
    // SAFETY: as in `malloc`.
    let heap = unsafe { heap(opaque) };
    // SAFETY: the engine frees what it was given by this heap, once.
    unsafe { heap.blocks.deallocate(block, ALIGN) };
}

#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn realloc(opaque: *mut c_void, block: *mut c_void, bytes: size_t) -> *mut c_void {
    let Some(old) = NonNull::new(block.cast()) else {
        // SAFETY: as the engine called this function.
        return unsafe { malloc(opaque, bytes) };
    };
    if bytes == 0 {
        // SAFETY: as the engine called this function.
        unsafe { free(opaque, block) };
        return ptr::null_mut();
    }
    // SAFETY: as in `malloc`.
    let heap = unsafe { heap(opaque) };
    // SAFETY: the block was given by this heap with this alignment, and is the engine's.
    let block = layout(bytes).and_then(|layout| unsafe { heap.blocks.reallocate(old, layout) });
    heap.given(block)
}

#[expect(unsafe_code, reason = "called by the engine")]
unsafe extern "C" fn usable_size(block: *const c_void) -> size_t {
    NonNull::new(block.cast_mut().cast()).map_or(0, |block| usable(block) as size_t)
}

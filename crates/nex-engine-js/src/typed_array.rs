//! The bytes of a script's typed arrays.

use bytes::Bytes;
use rquickjs::TypedArray;

/// A copy of the array's bytes, or how many they are when that is over `limit`. A detached array is empty.
#[expect(unsafe_code, reason = "there is no safe way to the bytes of a typed array")]
pub(crate) fn copy_bytes(array: &TypedArray<'_, u8>, limit: usize) -> Result<Bytes, usize> {
    // SAFETY: the slice is copied before this function returns, and no script runs meanwhile: the runtime belongs to this thread.
    let bytes = unsafe { array.as_bytes() }.unwrap_or_default();
    if bytes.len() > limit { Err(bytes.len()) } else { Ok(Bytes::copy_from_slice(bytes)) }
}

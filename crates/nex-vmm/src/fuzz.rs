//! Entry points for `fuzz/` to the parsers of monitors' answers.

/// A line of QMP.
///
/// # Errors
/// Why it is refused.
pub fn qmp(bytes: &[u8]) -> Result<(), String> {
    crate::qemu::qmp::parse(bytes).map(drop)
}

/// An answer of Firecracker's API, and what it says is wrong.
///
/// # Errors
/// Why it is refused.
pub fn firecracker(bytes: &[u8]) -> Result<(), &'static str> {
    if let Some(answer) = crate::firecracker::api::parse(bytes)? {
        drop(crate::firecracker::api::fault(&answer));
    }
    Ok(())
}

//! What goes wrong on a guest's channel.

use std::io;

/// A conversation with a guest failed. *Trust:* everything a guest sends is bounded, and shown as text only.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The stream broke.
    #[error("the guest's channel broke")]
    Broken(#[from] io::Error),
    /// It speaks another language.
    #[error("the guest said something else than was asked: {0}; next: rebuild the root image with this version's 'nex rootfs'")]
    Unexpected(String),
    /// It could not do it.
    #[error("the guest could not do it: {0}")]
    Failed(String),
    /// It said nothing in time.
    #[error("the guest did not answer in time")]
    Late,
}

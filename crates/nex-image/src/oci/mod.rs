//! Images of the Open Container Initiative (and of Docker, which has the same shape): an index leads to the manifest for this machine, the
//! manifest to layers. Wherever blobs come from, each is verified against its digest and size before the image counts as read.

pub(crate) mod archive;
mod blobs;
mod credentials;
mod document;
mod error;
mod image;
pub(crate) mod layout;
mod reference;
pub(crate) mod registry;
mod verify;

pub use credentials::Credentials;
pub(crate) use document::{Document, select_platform};
pub use error::{OciError, RegistryError};
pub use reference::{Digest, Reference, ReferenceError};

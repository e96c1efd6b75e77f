//! OCI images, and Docker images, which have the same structure: an index refers to the manifest for this machine, the manifest to
//! layers. Every blob is verified against its digest and size, whatever its source.

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

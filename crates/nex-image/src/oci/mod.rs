//! OCI images, and Docker images, which have the same structure: an index refers to the manifest for this machine, the manifest to
//! layers. Every blob is verified against its digest and size, whatever its source.

pub(crate) mod archive;
mod blobs;
mod contents;
mod cosign;
mod credentials;
mod docker;
mod document;
mod download;
mod error;
mod image;
pub(crate) mod layout;
mod pack;
mod reference;
pub(crate) mod registry;
mod stored;
mod verify;

pub(crate) use archive::Archive;
pub(crate) use blobs::read_document;
pub use contents::{Contents, PackedBlob, write_layout};
pub use cosign::{SignatureError, VerifyKey, Wrong, verify_signature};
pub use credentials::{Credentials, RegistryAccess};
pub use document::Platform;
pub(crate) use document::{Document, select_platform};
pub use error::{OciError, RegistryError};
pub(crate) use image::{load_layers, manifest};
pub(crate) use pack::with_tag;
pub use pack::{ImageSource, Packed};
pub use reference::{Digest, Reference, ReferenceError};
pub use registry::resolve;
pub use stored::{OpenBlob, StoredImage};

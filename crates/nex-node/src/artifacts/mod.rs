//! Artifacts: what object stores offer, and the cache of what was fetched from them.

mod cache;
mod draft;
mod error;
mod remote;

pub use cache::{Artifact, Artifacts, Compiled};
pub use draft::Draft;
pub use error::{Defect, FetchError};
pub use remote::RemoteArtifact;

//! The directories that a jailed process sees.

use std::path::PathBuf;

use super::spec::JailSpec;
use crate::confinement::Mode;

/// The directories of a jailed process, as it sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Files from the node, read-only.
    pub artifact: PathBuf,
    /// Scratch space, gone with the process; the working directory.
    pub work: PathBuf,
}

impl Layout {
    /// The directories that a jail of this spec has.
    #[must_use]
    pub fn of(spec: &JailSpec) -> Self {
        match (&spec.mode, &spec.work_dir) {
            (Mode::Plain, Some(work)) => Self { artifact: spec.artifact_dir.clone(), work: work.clone() },
            _ => Self { artifact: "/artifact".into(), work: "/work".into() },
        }
    }
}

//! What a sandbox is made from.

use std::fmt;
use std::path::PathBuf;

use crate::id::SandboxId;

/// One sandbox to make.
#[derive(Clone)]
pub struct SandboxSpec {
    /// Its name, never used before on this node.
    pub id: SandboxId,
    /// What its agent is told about itself: one line, no line break. A secret.
    pub identity: Vec<u8>,
    /// How large it is; the provider's own size if absent.
    pub size: Option<MachineSize>,
    /// Its memory, MiB, where it differs from that of its size; machines have that of their size.
    pub memory_mib: Option<u32>,
    /// The file of its root, an EROFS image; the provider's own root if absent.
    pub image: Option<PathBuf>,
}

/// What a sandbox has of the host: the size of a machine, or the limits of a process that count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineSize {
    /// Virtual processors.
    pub vcpus: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
}

impl fmt::Display for MachineSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vCPU, {} MiB", self.vcpus, self.memory_mib)
    }
}

impl fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxSpec").field("id", &self.id).field("size", &self.size).finish_non_exhaustive()
    }
}

//! The monitors that a node may try.

use std::fmt;
use std::path::PathBuf;

use nex_vmm::VmmKind;

/// What executes the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// KVM.
    Kvm,
    /// QEMU's emulator.
    Emulation,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Emulation => "emulation",
        })
    }
}

/// A monitor that is installed and may work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub kind: VmmKind,
    /// What executes its guests.
    pub accel: Accel,
    /// The program.
    pub binary: PathBuf,
    /// Firecracker's jailer, if it is to be used.
    pub jailer: Option<PathBuf>,
}

impl Candidate {
    /// Whether its machines can hold a hostile workload: on KVM, with the monitor in a jail.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.accel == Accel::Kvm && self.jailer.is_some()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.kind, self.accel, self.binary.display())
    }
}

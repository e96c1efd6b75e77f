//! The resources of a node with microVMs.

use std::fmt;

/// Virtual machine monitor of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// Firecracker with KVM, QEMU without.
    Either,
    /// Firecracker.
    Firecracker,
    /// QEMU.
    Qemu,
}

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Resource {
    Firecracker,
    Jailer,
    Qemu,
    Kernel,
    RootImage,
    Nft,
    /// A CNI plug-in, by the name of its program.
    Cni(&'static str),
}

impl Resource {
    /// The name of its program, if it is one.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Firecracker => Some("firecracker"),
            Self::Jailer => Some("jailer"),
            Self::Qemu => Some("qemu-system-x86_64"),
            Self::Nft => Some("nft"),
            Self::Cni(name) => Some(name),
            Self::Kernel | Self::RootImage => None,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firecracker => f.write_str("Firecracker, the virtual machine monitor"),
            Self::Jailer => f.write_str("Firecracker's jailer"),
            Self::Qemu => f.write_str("QEMU, the virtual machine monitor"),
            Self::Kernel => f.write_str("kernel of the guests"),
            Self::RootImage => f.write_str("root image of the guests"),
            Self::Nft => f.write_str("nft, for the guests' network"),
            Self::Cni(name) => write!(f, "CNI plug-in {name}"),
        }
    }
}

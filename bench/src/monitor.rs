//! The virtual machine monitors that can be measured.

use nex_node::config::SandboxChoice;
use serde::{Deserialize, Serialize};

/// A monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Monitor {
    Qemu,
    Firecracker,
}

impl Monitor {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "qemu" => Some(Self::Qemu),
            "firecracker" => Some(Self::Firecracker),
            _ => None,
        }
    }

    pub(crate) fn choice(self) -> SandboxChoice {
        match self {
            Self::Qemu => SandboxChoice::Qemu,
            Self::Firecracker => SandboxChoice::Firecracker,
        }
    }
}

//! Paths of resources.

use std::path::{Path, PathBuf};

/// Default directories of CNI plug-ins.
pub const CNI_BIN_PATH: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// The directory of resources installed by nex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of a directory, which need not exist.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kernel of the guests.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The root image of the guests.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs.img")
    }

    /// The directory of programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Firecracker.
    #[must_use]
    pub fn firecracker(&self) -> PathBuf {
        self.bin().join("firecracker")
    }

    /// Firecracker's jailer.
    #[must_use]
    pub fn jailer(&self) -> PathBuf {
        self.bin().join("jailer")
    }
}

/// Paths at which resources are searched and installed.
#[derive(Debug, Clone)]
pub struct ResourcePaths {
    /// Resources installed by nex.
    pub layout: Layout,
    /// The configured kernel.
    pub kernel: Option<PathBuf>,
    /// The configured root image.
    pub rootfs: Option<PathBuf>,
    /// The configured directories of programs.
    pub bin_path: Vec<PathBuf>,
    /// The directories of `$PATH`.
    pub path: Vec<PathBuf>,
    /// Directories of CNI plug-ins, if the network uses them; missing ones are installed in the first.
    pub cni_bin_path: Option<Vec<PathBuf>>,
    /// Agent that the root image must have, see `rootfs::agent_id`; any if absent.
    pub agent: Option<[u8; 16]>,
}

impl ResourcePaths {
    /// Only a layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, kernel: None, rootfs: None, bin_path: Vec::new(), path: Vec::new(), cni_bin_path: None, agent: None }
    }

    /// Path of the kernel; it may be missing.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.kernel.clone().unwrap_or_else(|| self.layout.kernel())
    }

    /// Path of the root image; it may be missing.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.rootfs.clone().unwrap_or_else(|| self.layout.rootfs())
    }
}

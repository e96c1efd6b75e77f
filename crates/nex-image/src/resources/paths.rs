//! Where resources are, or are to be.

use std::path::{Path, PathBuf};

/// Where CNI plug-ins are when the configuration does not say.
pub const CNI_BIN_PATH: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// The directory of what nex installed itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of a directory, which need not be there.
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

/// Where to look.
#[derive(Debug, Clone)]
pub struct ResourcePaths {
    /// What nex installed itself.
    pub layout: Layout,
    /// The kernel the configuration names.
    pub kernel: Option<PathBuf>,
    /// The root image the configuration names.
    pub rootfs: Option<PathBuf>,
    /// Directories of programs that the configuration names.
    pub bin_path: Vec<PathBuf>,
    /// The directories of `$PATH`.
    pub path: Vec<PathBuf>,
    /// Directories of CNI plug-ins, where the network is made by them; missing ones are put into the first.
    pub cni_bin_path: Option<Vec<PathBuf>>,
    /// What the root image must hold: see `rootfs::agent_id`. Absent: any image will do.
    pub agent: Option<[u8; 16]>,
}

impl ResourcePaths {
    /// A layout and nothing beside it.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, kernel: None, rootfs: None, bin_path: Vec::new(), path: Vec::new(), cni_bin_path: None, agent: None }
    }

    /// The kernel, whether there or not.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.kernel.clone().unwrap_or_else(|| self.layout.kernel())
    }

    /// The root image, whether there or not.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.rootfs.clone().unwrap_or_else(|| self.layout.rootfs())
    }
}

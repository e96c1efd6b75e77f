//! Where the pieces of a node with microVMs are, and what is missing. Finding only looks; [`install()`] brings what the manifest knows.

pub mod distribution;
pub mod fetch;
pub mod install;
pub mod manifest;
pub(crate) mod unpack;

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub use fetch::{FetchError, Mirror};
pub use install::{InstallError, install, verify};

use crate::kernel;

/// Where CNI plug-ins are when the configuration does not say.
pub const CNI_BIN_PATH: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// The plug-ins of the network that is made when the operator has none of their own.
pub const CNI_PLUGINS: [&str; 2] = ["ptp", "host-local"];

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
pub struct Places {
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

impl Places {
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

/// Which virtual machine monitor a node is to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// Whichever works: Firecracker where there is KVM, QEMU where there is not.
    Either,
    /// Firecracker.
    Firecracker,
    /// QEMU.
    Qemu,
}

/// A piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum What {
    Firecracker,
    Jailer,
    Qemu,
    Kernel,
    RootImage,
    Nft,
    /// A CNI plug-in, by the name of its program.
    Cni(&'static str),
}

impl What {
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

impl fmt::Display for What {
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

/// What is known of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The piece.
    pub what: What,
    /// Whether nothing works without it.
    pub required: bool,
    /// Where it is, and fit for use.
    pub path: Option<PathBuf>,
    /// Why it is not; empty where it is.
    pub why: String,
    /// What to do about it; empty where nothing is to be done.
    pub next: String,
}

/// Looks for everything that microVMs need. Reads the beginnings of files, runs nothing, changes nothing.
#[must_use]
pub fn find(vmm: Vmm, places: &Places) -> Vec<Found> {
    let mut found: Vec<Found> = monitors(vmm, places);
    found.push(piece(What::Kernel, true, kernel_at(places.kernel())));
    found.push(piece(What::RootImage, true, image_at(places.rootfs(), places.agent)));
    found.push(piece(What::Nft, true, in_programs(What::Nft, places)));
    if let Some(dirs) = &places.cni_bin_path {
        found.extend(CNI_PLUGINS.map(What::Cni).map(|what| piece(what, true, program(what, dirs))));
    }
    found
}

/// Where there is a choice, what is there decides which is required. A jailer is of use only with its monitor.
fn monitors(vmm: Vmm, places: &Places) -> Vec<Found> {
    let look = |what, required| piece(what, required, in_programs(what, places));
    let first = (vmm != Vmm::Qemu).then(|| look(What::Firecracker, true));
    let second = (vmm != Vmm::Firecracker).then(|| look(What::Qemu, true));
    let is_there = |found: &Option<Found>| found.as_ref().is_some_and(|found| found.path.is_some());
    let (has_first, has_second) = (is_there(&first), is_there(&second));
    let jailer = (has_first || vmm == Vmm::Firecracker).then(|| look(What::Jailer, false));
    let first = first.map(|found| Found { required: !has_second, ..found });
    let second = second.map(|found| Found { required: !has_first, ..found });
    [first, jailer, second].into_iter().flatten().collect()
}

/// A program where programs are; the administrator's are not in everybody's `$PATH`.
fn in_programs(what: What, places: &Places) -> Result<PathBuf, String> {
    let named: Vec<PathBuf> = places.bin_path.iter().cloned().chain([places.layout.bin()]).collect();
    let found = program(what, &named).or_else(|why| {
        let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all: Vec<PathBuf> = places.path.iter().cloned().chain(sbin).collect();
        program(what, &all).map_err(|_everywhere_else| why)
    });
    found.map_err(|why| format!("{why}, nor in PATH"))
}

fn piece(what: What, required: bool, looked: Result<PathBuf, String>) -> Found {
    match looked {
        Ok(path) => Found { what, required, path: Some(path), why: String::new(), next: String::new() },
        Err(why) => Found { what, required, path: None, why, next: install::advice(what) },
    }
}

/// A program that may be executed.
fn program(what: What, dirs: &[PathBuf]) -> Result<PathBuf, String> {
    let name = what.program().unwrap_or_default();
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let searched = || dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
    dirs.iter().map(|dir| dir.join(name)).find(is_program).ok_or_else(|| format!("no {name} in {}", searched()))
}

fn kernel_at(path: PathBuf) -> Result<PathBuf, String> {
    match kernel::is_bootable(&path) {
        Ok(true) => Ok(path),
        Ok(false) => Err(format!("{} is no kernel that can be booted (an uncompressed ELF file for x86_64)", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn image_at(path: PathBuf, agent: Option<[u8; 16]>) -> Result<PathBuf, String> {
    match nex_erofs::identify(&path) {
        Ok(Some(image)) if agent.is_none_or(|agent| agent == image.uuid) => Ok(path),
        Ok(Some(_)) => Err(format!("{} holds another nex-agent than the one here", path.display())),
        Ok(None) => Err(format!("{} is no EROFS image, or was cut off", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

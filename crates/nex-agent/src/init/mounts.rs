//! The file systems of a guest: the shared image is read-only, writes go to memory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::Context as _;
use nex_protocol::guest::GuestLimits;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::agent::{ARTIFACT, WORK};

/// Where the overlay is assembled: the one directory that every image has besides `/proc` and `/dev`.
const STAGE: &str = "/run";
/// Memory for files written outside `/tmp` and `/work`.
const UPPER: &str = "mode=0755,size=25%";

/// Mounts what programs expect, over a root that can be written to.
///
/// # Errors
/// When a required file system could not be mounted.
pub(super) fn set_up() -> anyhow::Result<()> {
    switch_root().context("cannot put a writable layer over the image")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let devices = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach("proc", "/proc", quiet, Some("hidepid=2"))?;
    attach("sysfs", "/sys", quiet, None)?;
    attach("devtmpfs", "/dev", devices, Some("mode=0755"))?;
    attach("tmpfs", "/run", quiet & !MsFlags::MS_NOEXEC, Some("mode=0755,size=10%"))?;
    // Optional: a kernel may lack them.
    let optional = [
        attach("devpts", "/dev/pts", devices, Some("newinstance,mode=0620,ptmxmode=0666")),
        attach("cgroup2", "/sys/fs/cgroup", quiet, None),
    ];
    for error in optional.into_iter().filter_map(Result::err) {
        super::log_to_console(&format!("{error:#}"));
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        // Ignore EEXIST.
        std::os::unix::fs::symlink(target, Path::new("/dev").join(link)).ok();
    }
    Ok(())
}

/// Mounts the agent's directories: tmpfs of the given size, owned by the agent's uid.
///
/// # Errors
/// When one of them could not be made.
pub(super) fn scratch(limits: &GuestLimits) -> anyhow::Result<()> {
    let (size, uid) = (limits.tmp_bytes, limits.uid);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for path in ["/tmp", "/dev/shm"] {
        attach("tmpfs", path, flags, Some(&format!("mode=1777,size={size}")))?;
    }
    attach("tmpfs", WORK, flags, Some(&format!("mode=0700,size={size},uid={uid},gid={uid}")))?;
    chown(WORK, Some(uid), Some(uid)).with_context(|| format!("cannot give {WORK} to the agent"))?;
    directory(ARTIFACT)
}

/// Puts an overlay over the image and makes it the root. Moved, not pivoted: that works from every kind of first root.
fn switch_root() -> anyhow::Result<()> {
    let at = |name: &str| format!("{STAGE}/{name}");
    mount(Some("tmpfs"), STAGE, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(UPPER))
        .with_context(|| format!("cannot mount memory at {STAGE}; next: check that the image has this directory"))?;
    for name in ["upper", "work", "root"] {
        directory(&at(name))?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", at("upper"), at("work"));
    mount(Some("overlay"), at("root").as_str(), Some("overlay"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
        .context("cannot mount the overlay; next: use a kernel with overlayfs built in")?;
    std::env::set_current_dir(at("root")).context("cannot enter the overlay")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the overlay to the root")?;
    nix::unistd::chroot(".").context("cannot make the overlay the root")?;
    std::env::set_current_dir("/").context("cannot enter the new root")
}

/// Mounts a file system without a device, in a directory that is made if need be.
fn attach(kind: &str, path: &str, flags: MsFlags, options: Option<&str>) -> anyhow::Result<()> {
    directory(path)?;
    match mount(Some(kind), path, Some(kind), flags, options) {
        // Already mounted by the kernel.
        Err(Errno::EBUSY) => Ok(()),
        done => done.with_context(|| format!("cannot mount {kind} at {path}; next: check that this kernel has it")),
    }
}

/// Makes a directory with mode 0755.
pub(super) fn directory(path: &str) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().mode(0o755).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot make the directory {path}")),
        Ok(()) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot open {path} to all"))
        }
    }
}

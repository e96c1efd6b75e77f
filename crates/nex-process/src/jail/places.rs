//! What is mounted into a new root: devices, `/proc`, memory, files and directories of the host. Used by each kind of root.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::{getgid, getuid};

use super::error::JailError;
use super::spec::JailSpec;
use crate::confinement::Mode;

pub(super) const RESOLV_CONF: &str = "resolv.conf";
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Parts of `/proc` that tell about the host and not about the jail.
const MASKED: [&str; 5] = ["kcore", "keys", "timer_list", "sched_debug", "latency_stats"];

pub(super) const ALLOW: &str = "allow mounts in namespaces on this host (containers: the seccomp profile and AppArmor)";
pub(super) const HARDENED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Keeps what is mounted from here on from the host.
pub(super) fn cut_off() -> Result<(), JailError> {
    umask(FileMode::from_bits_truncate(0o022));
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(JailError::step("cutting mounts off from the host", ALLOW))
}

/// Runs one step and names the path in the error.
pub(super) fn put(path: PathBuf, step: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JailError> {
    step(&path).map_err(|source| JailError::Mount { path, source })
}

pub(super) fn make_dir(path: &Path) -> Result<(), JailError> {
    fs::create_dir_all(path).map_err(|source| JailError::Mount { path: path.into(), source })
}

/// Where a path of the host is, until it is let go.
pub(super) fn in_old(old: &str, path: &Path) -> PathBuf {
    Path::new(old).join(path.strip_prefix("/").unwrap_or(path))
}

/// The harmless devices, and memory to share, in `/dev`.
pub(super) fn devices(spec: &JailSpec, old: &str) -> Result<(), JailError> {
    make_dir(Path::new("/dev"))?;
    for name in DEVICES {
        put(Path::new("/dev").join(name), |path| {
            fs::write(path, "")?;
            let none: Option<&str> = None;
            mount(Some(&in_old(old, path)), path, none, MsFlags::MS_BIND, none)?;
            Ok(())
        })?;
    }
    put("/dev/shm".into(), |path| memory(path, &format!("mode=1777,{}", size(spec)), HARDENED | MsFlags::MS_NOEXEC))?;
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        put(Path::new("/dev").join(name), |path| symlink(format!("/proc/self/fd{target}"), path))?;
    }
    Ok(())
}

/// A fresh `/proc`, read-only as a whole: nothing in it is a knob for a workload. Must come before the host's is let go, because
/// the kernel gives an ordinary user a new one only while he can see an old one.
pub(super) fn proc(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let (none, flags): (Option<&str>, _) = (None, HARDENED | MsFlags::MS_NOEXEC);
    mount(Some("proc"), path, Some("proc"), flags, none)?;
    for name in MASKED {
        let masked = path.join(name);
        if masked.exists() {
            mount(Some("/dev/null"), &masked, none, MsFlags::MS_BIND, none)?;
        }
    }
    mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, none)?;
    Ok(())
}

pub(super) fn memory(path: &Path, options: &str, flags: MsFlags) -> io::Result<()> {
    fs::create_dir_all(path)?;
    mount(Some("nex"), path, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

/// Size and number of files of a place in memory; without the second a million empty files would fill the kernel instead.
pub(super) fn size(spec: &JailSpec) -> String {
    format!("size={},nr_inodes={}", spec.tmp_bytes, (spec.tmp_bytes / 4096).max(1024))
}

pub(super) fn bind(source: &Path, path: &Path) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(path)?;
    } else {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, "")?;
    }
    let none: Option<&str> = None;
    mount(Some(source), path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    harden(path)
}

/// Makes a bound tree nosuid, nodev and read-only, with everything that is mounted inside it.
#[expect(unsafe_code, reason = "mount_setattr(2) has no safe wrapper")]
pub(super) fn harden(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;

    use nix::libc;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string and the attributes a `mount_attr` of the size given; both outlive the call, which only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOSYS) { harden_top(path) } else { Err(error) }
}

/// The same before Linux 5.12, without the mounts inside. Flags that are already there stay, as they may be locked.
fn harden_top(path: &Path) -> io::Result<()> {
    let present = nix::sys::statvfs::statvfs(path)?.flags();
    let kept = MsFlags::from_bits_truncate(nix::libc::c_ulong::from(present.bits()));
    let kept = kept & (HARDENED | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME);
    let none: Option<&str> = None;
    mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARDENED | kept, none)?;
    Ok(())
}

/// Uid and gid of the jailed process.
pub(super) fn owner(spec: &JailSpec) -> (u32, u32) {
    match (spec.mode, spec.uid) {
        (Mode::Privileged, Some(uid)) => (uid, uid),
        _ => (getuid().as_raw(), getgid().as_raw()),
    }
}

pub(super) fn accounts(uid: u32, gid: u32) -> String {
    let own = if uid == 0 { String::new() } else { format!("nex:x:{uid}:{gid}:nex:/work:/bin/sh\n") };
    format!("root:x:0:0:root:/:/usr/sbin/nologin\n{own}")
}

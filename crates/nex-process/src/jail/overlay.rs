//! Memory over an image, so that a workload writes where its image's user may, for as long as it runs: the image itself stays as it is.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::mount::mount;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::stat::Mode as FileMode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir};

use super::error::JailError;
use super::fork::{exit, split};
use super::places::{HARDENED, memory, owner, size};
use super::spec::JailSpec;

const ADVICE: &str = "use a kernel with overlayfs (modprobe overlay)";
/// Upper and working directory, relative to the image's root: memory is mounted over a directory that every image has.
const MEMORY: &str = ".nex/own";
const UPPER: &str = ".nex/own/upper";
const WORK: &str = ".nex/own/work";

/// Lays memory over the image that is mounted at a place. As much can be written as to each other scratch directory.
pub(super) fn lay_over(spec: &JailSpec, place: &Path) -> Result<(), JailError> {
    let (uid, gid) = owner(spec);
    // On an older kernel the image's files are root's: written where their modes permit, but not the workload's own.
    let _older_kernel = give_to(place, uid, gid);
    let laid = || -> io::Result<()> {
        // Paths are relative, for in the options of an overlay some characters mean something.
        chdir(place)?;
        memory(Path::new(MEMORY), &format!("mode=0700,{}", size(spec)), HARDENED)?;
        for dir in [UPPER, WORK] {
            fs::create_dir(dir)?;
        }
        chown(UPPER, Some(uid), Some(gid))?;
        fs::set_permissions(UPPER, Permissions::from_mode(fs::metadata(".")?.permissions().mode()))?;
        let options = format!("lowerdir=.,upperdir={UPPER},workdir={WORK}");
        Ok(mount(Some("overlay"), ".", Some("overlay"), HARDENED, Some(options.as_str()))?)
    };
    laid().map_err(JailError::step("laying memory over the image", ADVICE))
}

/// Mounts what is at a place there once more, with what belongs to root belonging to a user (Linux 5.19).
#[expect(unsafe_code, reason = "the system calls for mounts have no safe wrappers")]
fn give_to(place: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let namespace = namespace_of(uid, gid).map_err(io::Error::other)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    let (place, nothing) = (std::ffi::CString::new(place.as_os_str().as_encoded_bytes())?, c"".as_ptr());
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string that outlives the call, which only reads it.
    let tree = done(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, place.as_ptr(), flags) })?;
    // SAFETY: the call has just given this descriptor to this process, and nobody else knows of it.
    let tree = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(tree).map_err(io::Error::other)?) };
    let (fd, size) = (tree.as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the string is a C string and the attributes a `mount_attr` of the size given; both outlive the call, which only reads them.
    done(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, nothing, libc::AT_EMPTY_PATH, &raw const attributes, size) })?;
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: both paths are C strings that outlive the call, which only reads them.
    done(unsafe { libc::syscall(libc::SYS_move_mount, fd, nothing, libc::AT_FDCWD, place.as_ptr(), flags) })?;
    Ok(())
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A user namespace in which root is a user outside. A child makes it and ends; this process, which has the rights, maps it.
fn namespace_of(uid: u32, gid: u32) -> Result<File, JailError> {
    let step = JailError::step::<io::Error>("making a user namespace", "allow user namespaces on this host");
    let (ours, its) = match socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC) {
        Ok(pair) => pair,
        Err(error) => return Err(step(error.into())),
    };
    match split()? {
        ForkResult::Child => {
            drop(ours);
            exit(i32::from(show_own_namespace(its).is_err()))
        }
        ForkResult::Parent { child } => {
            drop(its);
            let namespace = map_shown_namespace(&ours, uid, gid);
            drop(ours);
            // Only this child ends before the agent is there.
            let _ended = waitpid(child, None);
            namespace.map_err(step)
        }
    }
}

/// In the child: makes a user namespace, shows its own directory of `/proc`, and stays until the other side is closed.
fn show_own_namespace(socket: OwnedFd) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let own = File::open("/proc/self")?;
    let shown = [own.as_raw_fd()];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b".")], &[ControlMessage::ScmRights(&shown)], MsgFlags::empty(), None)?;
    let mut end = Vec::new();
    File::from(socket).read_to_end(&mut end)?;
    Ok(())
}

#[expect(unsafe_code, reason = "a received descriptor is a number")]
fn map_shown_namespace(socket: &OwnedFd, uid: u32, gid: u32) -> io::Result<File> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!(RawFd));
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffer, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let received = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let received = received.ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows of it.
    let process = unsafe { OwnedFd::from_raw_fd(received) };
    let open = |name: &str, flags| Ok::<_, io::Error>(File::from(openat(process.as_fd(), name, flags, FileMode::empty())?));
    for (name, id) in [("uid_map", uid), ("gid_map", gid)] {
        io::Write::write_all(&mut open(name, OFlag::O_WRONLY | OFlag::O_CLOEXEC)?, format!("0 {id} 1").as_bytes())?;
    }
    open("ns/user", OFlag::O_RDONLY | OFlag::O_CLOEXEC)
}

//! Taps: network interfaces whose other end is a descriptor in a program. The ioctls that no safe crate wraps.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

/// A name longer than this does not fit into the kernel's request, which ends with a zero.
const MAX_NAME: usize = libc::IFNAMSIZ - 1;
/// Whole frames, each with a virtio header: what virtual machine monitors speak.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// The kernel refuses to attach to a tap that exists.
const EXCLUSIVE: i32 = 0x8000;

/// Opens a tap that exists, ready for a virtual machine monitor (non-blocking).
///
/// # Errors
/// When there is no such interface in the namespace, it is no tap, it is in use, or we may not.
pub fn open_tap(name: &str, netns: Option<&Path>) -> io::Result<OwnedFd> {
    let open = || {
        // To attach to a missing one would make it.
        if_nametoindex(name)?;
        attach(name, FLAGS, libc::O_NONBLOCK).map(OwnedFd::from)
    };
    let Some(path) = netns else { return open() };
    let netns = File::open(path)?;
    // Which namespace a tap's descriptor belongs to follows from the thread that opens it; this thread lives for nothing else.
    let enter_and_open = || setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| open());
    std::thread::scope(|scope| scope.spawn(enter_and_open).join()).unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()))
}

/// Makes a persistent tap in the caller's network namespace. While the file is open, no other process can attach to the device.
///
/// # Errors
/// `ResourceBusy` when a device of this name exists; another when `/dev/net/tun` is missing or `CAP_NET_ADMIN` is lacking.
pub fn create_tap(name: &str) -> io::Result<File> {
    let tap = attach(name, FLAGS | EXCLUSIVE, 0)?;
    persist(&tap)?;
    Ok(tap)
}

/// Attaches to a persistent tap, made again if it is gone by now. Success means that no other process has it open.
///
/// # Errors
/// `ResourceBusy` when another process has it open, another when the device is no tap or `CAP_NET_ADMIN` is lacking.
pub fn claim_tap(name: &str) -> io::Result<File> {
    let tap = attach(name, FLAGS, 0)?;
    persist(&tap)?;
    Ok(tap)
}

#[expect(unsafe_code, reason = "the ioctls of taps have no safe wrapper")]
fn attach(name: &str, flags: i32, open_flags: i32) -> io::Result<File> {
    if name.is_empty() || name.len() > MAX_NAME || name.bytes().any(|byte| byte == 0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for a device")));
    }
    let tun = OpenOptions::new().read(true).write(true).custom_flags(open_flags).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::c_short::from_ne_bytes(u16::try_from(flags).map_err(io::Error::other)?.to_ne_bytes());
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tun) }
}

/// Lets only this user, and processes with `CAP_NET_ADMIN`, attach to a tap by its name. A tap without an owner is open to every process
/// that can open `/dev/net/tun`, which on most systems is every process.
///
/// # Errors
/// When the file is no attached tap.
#[expect(unsafe_code, reason = "the ioctls of taps have no safe wrapper")]
pub fn give_tap(tap: &File, uid: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "the ioctls of taps have no safe wrapper")]
fn persist(tap: &File) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: TUNSETPERSIST takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, yes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! Taps: network interfaces whose other end is a descriptor in a program.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::sched::{CloneFlags, setns};

/// Opens a tap that exists, ready for a virtual machine monitor (whole frames, each with a virtio header, non-blocking).
///
/// # Errors
/// When there is no such interface in the namespace, it is no tap, it is in use, or we may not.
pub fn open_tap(name: &str, netns: Option<&Path>) -> io::Result<OwnedFd> {
    let Some(path) = netns else { return open_here(name) };
    let netns = File::open(path)?;
    // Which namespace a tap's descriptor belongs to follows from the thread that opens it; this thread lives for nothing else.
    let open = || setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| open_here(name));
    std::thread::scope(|scope| scope.spawn(open).join()).unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()))
}

fn open_here(name: &str) -> io::Result<OwnedFd> {
    let mut request = request(name)?;
    let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    attach(&tun, &mut request)?;
    Ok(tun.into())
}

/// Checks the name and that there is such an interface: to attach to a missing one would make it.
#[expect(unsafe_code, reason = "no safe wrapper is in use: an interface's index by its name, an empty request")]
fn request(name: &str) -> io::Result<libc::ifreq> {
    let c_name = CString::new(name)?;
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the name is a C string that outlives the call.
    if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid `ifreq`: it consists of integers and byte arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

#[expect(unsafe_code, reason = "no safe wrapper is in use for this ioctl")]
fn attach(tun: &File, request: &mut libc::ifreq) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the request is a whole `ifreq`, which is what TUNSETIFF reads and writes.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, std::ptr::from_mut(request)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

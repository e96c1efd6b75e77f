//! System calls of a virtual machine's init: restart, clock, entropy, orphaned processes.
//!
//! Nothing here is of use outside of a guest: these calls are about the whole machine.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use rustix::system::{RebootCommand, reboot};

/// Most bytes of entropy accepted at once.
const ENTROPY: usize = 256;

/// Flushes file systems, then restarts the machine; a monitor that does not restart it exits cleanly.
///
/// # Errors
/// When the kernel refuses, because the caller may not do this.
pub fn restart() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::Restart)?)
}

/// Has Ctrl-Alt-Del sent to the init as SIGINT, instead of restarting the machine at once.
///
/// # Errors
/// When the kernel refuses, because the caller may not do this.
pub fn take_ctrl_alt_del() -> io::Result<()> {
    Ok(reboot(RebootCommand::CadOff)?)
}

/// Sets the clock to this time after 1970.
///
/// # Errors
/// When the time is out of range or the caller may not do this.
pub fn set_clock(time: Duration) -> io::Result<()> {
    let seconds = i64::try_from(time.as_secs()).map_err(io::Error::other)?;
    let time = rustix::time::Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)?)
}

/// Adds secret bytes to the kernel's entropy pool and reseeds its generator: otherwise the clones of a snapshot would draw the same random
/// numbers.
///
/// # Errors
/// When there are none or more than 256 of them, or the caller may not do this.
#[expect(unsafe_code, reason = "these requests to /dev/urandom have no safe wrapper")]
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    /// `struct rand_pool_info` with room for all that may come.
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; ENTROPY],
    }
    const ADD: libc::Ioctl = 0x4008_5203;
    const RESEED: libc::Ioctl = 0x5207;
    if bytes.is_empty() || bytes.len() > ENTROPY {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let size = libc::c_int::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut pool = Pool { bits: size.saturating_mul(8), bytes: size, data: [0; ENTROPY] };
    pool.data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let device = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the request reads `bytes` bytes of a `rand_pool_info`, which the structure has; it outlives the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), ADD, &raw const pool) })?;
    // SAFETY: the request has no argument.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RESEED) })?;
    Ok(())
}

/// Reaps processes whose parents are gone, until there are none or the next one is `own`, which its owner waits for.
pub fn reap_orphans(own: i32) {
    let ended = || waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
    while let Some(pid) = ended().ok().and_then(|status| status.pid())
        && pid.as_raw() != own
    {
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

/// Kills every process but the caller.
pub fn kill_everything() {
    // ESRCH: there is no process to kill.
    let _gone = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_randomness_and_too_much_of_it_are_refused_before_the_kernel_is_asked() {
        for bytes in [&[][..], &[0; ENTROPY + 1]] {
            assert_eq!(add_entropy(bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}

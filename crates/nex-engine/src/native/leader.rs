//! The first process of a group that was just started: how much memory it may have, and how its death is seen before it is reaped.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, prlimit};
use tokio::io::unix::AsyncFd;

use crate::error::StartError;

/// Limits the address space of the program, which already runs but has not used much yet.
pub(super) fn limit_memory(pid: Pid, bytes: u64) -> Result<(), StartError> {
    if bytes == 0 {
        return Ok(());
    }
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match prlimit(Some(pid), Resource::As, limit) {
        // The program has ended already.
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(StartError::host("set the program's memory limit", error.into())),
    }
}

/// A pidfd, readable when the process is dead. Until it is reaped its pid is not reused, so its group can be signalled safely.
pub(super) fn watch_death(pid: Pid) -> Result<AsyncFd<OwnedFd>, StartError> {
    let descriptor =
        pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| StartError::host("watch the program", error.into()))?;
    #[expect(deprecated, reason = "an OwnedFd stays open as long as it is registered, which is all the new unsafe one asks")]
    let registered = AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE);
    registered.map_err(|error| StartError::host("watch the program", error))
}

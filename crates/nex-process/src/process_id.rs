//! A process of this host, named so that a recycled pid is never mistaken for it.
//!
//! Everything that acts on a process that may outlive its starter (adoption, leftovers) goes by this name. Signals go through a
//! pidfd whose process was checked, so they never reach another process with the same pid.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::deadline::{Deadline, Elapsed};

/// Pid and start time of a process; only both together mean it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, in the pid namespace of its creator.
    pub pid: i32,
    /// Clock ticks since the host's boot at which the process started (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` if there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, start_time)| Self { pid, start_time })
    }

    /// The calling process.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(nix::unistd::getpid().as_raw())
    }

    /// Every process of this host whose real uid is that one, with the number of its threads.
    #[must_use]
    pub fn all_of_user(uid: u32) -> Vec<(Self, u64)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
            let threads = field("Threads:")?.parse().ok()?;
            if field("Uid:")?.parse() == Ok(uid) { Some((Self::of(pid)?, threads)) } else { None }
        })
        .collect()
    }

    /// Whether it still runs. One that has ended and waits to be reaped does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.state().is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// Whether the kernel still knows it, running or not: as long as it does, the pid is not given to another.
    #[must_use]
    pub(crate) fn is_known(self) -> bool {
        self.state().is_some()
    }

    fn state(self) -> Option<char> {
        stat(self.pid).filter(|(_, start_time)| *start_time == self.start_time).map(|(state, _)| state)
    }

    /// Sends a signal to it; `Ok(false)` when it is gone.
    ///
    /// # Errors
    /// When the kernel refuses, most often because the process belongs to another user.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(named) = rustix::process::Signal::from_named_raw(signal as i32) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let Some(fd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(fd, named) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; it need not be a child.
    ///
    /// # Errors
    /// [`Elapsed`] when it still runs at the deadline.
    pub async fn wait_gone(self, deadline: Deadline) -> Result<(), Elapsed> {
        deadline.bound(self.gone()).await
    }

    pub(crate) async fn gone(self) {
        let watched = self.open().ok().flatten().and_then(watch);
        if let Some(fd) = watched {
            // A pidfd becomes readable once, when its process ends; an error here only means that the loop below decides.
            drop(fd.readable().await);
        }
        while self.is_alive() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Every process whose working or root directory is this one or inside it.
    #[must_use]
    pub fn all_inside(dir: &std::path::Path) -> Vec<Self> {
        // As the kernel names it.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let pids =
            fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let lives_there = |pid: &i32| {
            let links = [format!("/proc/{pid}/cwd"), format!("/proc/{pid}/root")];
            links.iter().any(|link| fs::read_link(link).is_ok_and(|found| found.starts_with(&dir)))
        };
        pids.filter(lives_there).filter_map(Self::of).collect()
    }

    /// Kills it and waits until it has ended.
    ///
    /// # Errors
    /// [`Elapsed`] when it is still there at the deadline, because it may not be killed by us or hangs in the kernel.
    pub async fn kill_and_wait(self, deadline: Deadline) -> Result<(), Elapsed> {
        if let Err(error) = self.signal(Signal::SIGKILL) {
            tracing::warn!(pid = self.pid, %error, "process could not be killed");
        }
        self.wait_gone(deadline).await
    }

    /// A pidfd of exactly this process. The start time is read after opening: if it is the recorded one then, the pid was not
    /// recycled before either.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn watch(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor for its whole life, and the `AsyncFd` owns it until it is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.ok()
}

/// State letter and start time. The name in parentheses may itself contain blanks and parentheses, so the last `)` counts.
fn stat(pid: i32) -> Option<(char, u64)> {
    if pid <= 0 {
        return None;
    }
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3; field 22 is eighteen further on.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_mistaken() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let former = ProcessId { start_time: own.start_time - 1, ..own };
        assert!(!former.is_alive());
        assert!(!former.signal(Signal::SIGKILL).unwrap(), "must hit nobody, least of all us");
        assert_eq!(ProcessId::of(0), None);
        assert_eq!(ProcessId::of(-1), None);
        assert_eq!(ProcessId::of(i32::MAX), None);
    }

    #[test]
    fn processes_of_a_user_are_found() {
        let own = ProcessId::own().unwrap();
        let found = ProcessId::all_of_user(nix::unistd::getuid().as_raw());
        assert!(found.iter().any(|(id, threads)| *id == own && *threads >= 1));
        assert!(ProcessId::all_of_user(u32::MAX - 1).is_empty());
    }

    #[test]
    fn processes_inside_a_directory_are_found() {
        let own = ProcessId::own().unwrap();
        assert!(ProcessId::all_inside(&std::env::current_dir().unwrap()).contains(&own));
        assert!(!ProcessId::all_inside(std::path::Path::new("/nowhere")).contains(&own));
    }

    #[test]
    fn it_survives_a_journal() {
        let own = ProcessId::own().unwrap();
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<ProcessId>(&text).unwrap(), own);
    }
}

//! The two forks of a jail, and the two processes that only wait.
//!
//! Both wait with every interesting signal blocked and taken by `sigwait`, so none is lost between two calls, and an init (for which
//! the kernel drops signals without a handler) still gets those that are meant for the agent. Init and agent lead sessions of their
//! own: a signal to stage 1's group reaches the agent once, through stage 1 and init.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid};

use super::error::JailError;

/// Passed from the outside to the agent.
const FORWARDED: [Signal; 6] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, KILL_SIGNAL];

/// Sent to the first process of a jail, it kills everything inside, and the first process ends when the last of them is gone.
/// Killing the first process itself would leave the others to end later and be reaped elsewhere.
pub const KILL_SIGNAL: Signal = Signal::SIGUSR2;

const RETRY: &str = "the host has too many processes or too little memory; try again when it has room";

/// What the init holds between the two forks.
pub(super) struct Guard {
    /// Readable (closed) as soon as stage 1 is gone.
    stage_one: OwnedFd,
    /// The signal mask of the caller, which the agent gets back.
    mask: SigSet,
}

/// Forks the init. Returns in it; stage 1 waits for it and exits with its status.
pub(super) fn split_init() -> Result<Guard, JailError> {
    let (stage_one, held) = pipe2(OFlag::O_CLOEXEC).map_err(JailError::step("making a pipe", RETRY))?;
    let mask = block()?;
    match split()? {
        ForkResult::Child => {
            drop(held);
            // A session of its own: signals to stage 1's group are forwarded, not doubled.
            setsid().map_err(JailError::step("making a session", RETRY))?;
            Ok(Guard { stage_one, mask })
        }
        ForkResult::Parent { child } => {
            drop(stage_one);
            wait_for(child)
        }
    }
}

/// Ties the init to stage 1 and forks the agent. Returns in the agent; the init reaps until that one ends.
pub(super) fn split_agent(guard: Guard) -> Result<(), JailError> {
    let Guard { stage_one, mask } = guard;
    // Set after the change of uid, which clears it. If stage 1 died before, the pipe is closed.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(JailError::step("binding the jail to its first process", RETRY))?;
    if is_closed(&stage_one) {
        exit(128 + Signal::SIGKILL as i32);
    }
    drop(stage_one);
    match split()? {
        ForkResult::Child => {
            setsid().map_err(JailError::step("making a session", RETRY))?;
            mask.thread_set_mask().map_err(JailError::step("restoring the signal mask", RETRY))
        }
        ForkResult::Parent { child } => wait_for(child),
    }
}

fn is_closed(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(ready) if ready > 0)
}

fn block() -> Result<SigSet, JailError> {
    let mut mask = SigSet::thread_get_mask().map_err(JailError::step("reading the signal mask", RETRY))?;
    watched().thread_block().map_err(JailError::step("blocking signals", RETRY))?;
    // The agent gets its own children's endings in any case.
    mask.remove(Signal::SIGCHLD);
    Ok(mask)
}

fn watched() -> SigSet {
    let mut set: SigSet = FORWARDED.into_iter().collect();
    set.add(Signal::SIGCHLD);
    set
}

#[expect(unsafe_code, reason = "fork has no safe wrapper; the process has one thread")]
pub(super) fn split() -> Result<ForkResult, JailError> {
    // SAFETY: the process has exactly one thread (checked on entry), so no lock can be held by a thread that the child lacks.
    unsafe { fork() }.map_err(JailError::step("forking", RETRY))
}

/// Reaps every child and forwards signals until `main` has ended, then exits with its status.
fn wait_for(main: Pid) -> ! {
    let set = watched();
    loop {
        if let Some(code) = reap(main) {
            exit(code);
        }
        match set.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let signal = if signal == KILL_SIGNAL { Signal::SIGKILL } else { signal };
                // Gone already: the next round notices.
                let _gone = kill(main, signal);
            }
        }
    }
}

fn reap(main: Pid) -> Option<i32> {
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return None,
            // No child at all: nothing to wait for any more.
            Err(Errno::ECHILD) => return Some(1),
            Ok(_) | Err(_) => continue,
        };
        if pid == main {
            return Some(code);
        }
    }
}

#[expect(clippy::exit, reason = "the waiting processes of a jail have no caller to return to")]
pub(super) fn exit(code: i32) -> ! {
    std::process::exit(code)
}

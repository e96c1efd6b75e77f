//! The process group of a service, signalled only while its leader's id is certainly still its own.

use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The group, until its leader is reaped: from then on the kernel may give the id to a stranger.
#[derive(Debug)]
pub(super) struct Group {
    leader: Mutex<Option<Pid>>,
}

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader: Mutex::new(Some(leader)) }
    }

    /// Signals every process of the group, if it is still there.
    pub(super) fn signal(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *leader
            && let Err(error) = kill_process_group(pid, signal)
        {
            tracing::debug!(%error, ?signal, "process group not signalled");
        }
    }

    /// Kills what is left and gives the id up; called while the leader is dead but not yet reaped.
    pub(super) fn retire(&self) {
        self.signal(Signal::KILL);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

//! The process group of a service, signalled only until its leader is reaped.

use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process group. After the leader is reaped the kernel may reuse its id, so it is then forgotten.
#[derive(Debug)]
pub(super) struct Group {
    leader: Mutex<Option<Pid>>,
}

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader: Mutex::new(Some(leader)) }
    }

    /// Signals every process of the group, if it still exists.
    pub(super) fn signal(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *leader
            && let Err(error) = kill_process_group(pid, signal)
        {
            tracing::debug!(%error, ?signal, "cannot signal the process group");
        }
    }

    /// Signals the leader alone, if it still exists.
    pub(super) fn signal_leader(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *leader
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, ?signal, "cannot signal the program");
        }
    }

    /// Kills what is left and forgets the id. Call it when the leader is dead but not yet reaped.
    pub(super) fn retire(&self) {
        self.signal(Signal::KILL);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

//! How a process ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::process_id::ProcessId;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The code it exited with, if it did.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// It ended in an unknown way, because it was not a child of this process.
    pub const UNKNOWN: Self = Self { code: None, signal: None };

    /// Takes how a child ended that no [`Child`](super::Child) of this process waits for: one that this process started before it became
    /// another program. Nothing where it runs, or is not ours.
    #[must_use]
    pub fn reap(process: ProcessId) -> Option<Self> {
        if process.is_alive() || !process.is_known() {
            return None;
        }
        let ended = rustix::process::waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG).ok()?;
        ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()).into())
    }

    /// Whether it exited with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code == Some(0)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_unnamed) => write!(f, "killed by signal {signal}"),
            },
            (None, None) => f.write_str("ended in an unknown way"),
        }
    }
}

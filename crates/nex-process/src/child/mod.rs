//! The owner of a child process, from its start to its end.
//!
//! A child gets a session of its own (Ctrl-C of the terminal does not reach it), an environment with nothing inherited and no
//! descriptor but its three streams and what it is explicitly given. It is *not* tied to its starter's life: agents outlive a killed node. Therefore
//! [`Output::Lines`] suits programs that survive a broken pipe; give others a file.
//!
//! Dropping a [`Child`] kills its process group; [`Child::release`] lets it live on.

mod entry;
mod spec;

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::watch;

use crate::deadline::Deadline;
use crate::process_id::ProcessId;
use crate::scope::TaskScope;

pub use spec::{ChildSpec, LineSink, Output, SpawnError, Stdin};

/// How long the kernel may take to end a process after SIGKILL before the owner gives up waiting.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The code it exited with, if it did.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// It ended, and nobody could tell how: it was another's child.
    pub const UNKNOWN: Self = Self { code: None, signal: None };

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

/// One attempt to end a process, and how long it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// It was asked by other means; give it time.
    Wait(Duration),
    /// Send this signal, then give it time.
    Signal(Signal, Duration),
    /// Kill the whole process group. Always the last rung, whether listed or not.
    Kill,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The rung that worked.
    pub rung: Rung,
    /// How it ended; `None` when even the kernel could not end it in time.
    pub exit: Option<Exit>,
}

/// A running child process and the duty to end it.
pub struct Child {
    id: ProcessId,
    exit: watch::Receiver<Option<Exit>>,
    stdin: Mutex<Option<ChildStdin>>,
    owned: bool,
    tasks: TaskScope,
}

impl Child {
    fn new(id: ProcessId, exit: watch::Receiver<Option<Exit>>, stdin: Option<ChildStdin>, tasks: TaskScope) -> Self {
        Self { id, exit, stdin: Mutex::new(stdin), owned: true, tasks }
    }

    /// Which process it is.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Writes to a held stdin, then closes it. The second call finds it closed.
    ///
    /// # Errors
    /// When the child does not take it, because it ended or closed its stdin.
    pub async fn feed(&self, bytes: &[u8]) -> io::Result<()> {
        let pipe = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut pipe = pipe.ok_or(io::ErrorKind::NotConnected)?;
        pipe.write_all(bytes).await?;
        pipe.flush().await
    }

    /// Waits until it has ended and its last lines were delivered.
    ///
    /// # Cancel safety
    /// May be dropped and called again, by several tasks at once.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::UNKNOWN)
    }

    /// Sends a signal to the process and those of its session that did not leave its group.
    pub fn signal(&self, signal: Signal) {
        // As long as the process is known, its pid (and so the group's id) belongs to nobody else.
        if self.exit().is_none()
            && self.id.is_known()
            && let Err(error) = killpg(Pid::from_raw(self.id.pid), signal)
        {
            tracing::debug!(pid = self.id.pid, %signal, %error, "signal not delivered");
        }
    }

    /// Ends it: each rung in turn until it is gone, the kill always last.
    pub async fn shutdown(&self, ladder: &[Rung]) -> Stopped {
        for &rung in ladder {
            let patience = match rung {
                Rung::Wait(patience) => patience,
                Rung::Signal(signal, patience) => {
                    self.signal(signal);
                    patience
                }
                Rung::Kill => break,
            };
            if let Ok(exit) = Deadline::after(patience).bound(self.exited()).await {
                return Stopped { rung, exit: Some(exit) };
            }
        }
        self.signal(Signal::SIGKILL);
        let exit = Deadline::after(KILL_WAIT).bound(self.exited()).await.ok();
        Stopped { rung: Rung::Kill, exit }
    }

    /// Gives up ownership: it runs on, and nobody kills it on drop. Its piped output is no longer read.
    #[must_use]
    pub fn release(mut self) -> ProcessId {
        self.owned = false;
        self.id
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.owned {
            self.signal(Signal::SIGKILL);
        }
        // The waiting task goes with the scope; the runtime reaps what it has left.
        self.tasks.cancel();
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("exit", &self.exit()).finish_non_exhaustive()
    }
}

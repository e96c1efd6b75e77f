//! The handle of a running child: signals, the wait for its end, the shutdown.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::watch;

use super::exit::Exit;
use crate::deadline::Deadline;
use crate::process_id::ProcessId;
use crate::scope::TaskScope;

/// How long the kernel may take to end a process after SIGKILL before the owner gives up waiting.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// One step of a shutdown, and how long to wait after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// It was asked to end by other means; wait.
    Wait(Duration),
    /// Send this signal, then wait.
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

/// A running child process. Dropping it kills its process group.
pub struct Child {
    id: ProcessId,
    exit: watch::Receiver<Option<Exit>>,
    stdin: Mutex<Option<ChildStdin>>,
    owned: bool,
    /// Whether another process started it, which has ended since.
    adopted: bool,
    tasks: TaskScope,
}

impl Child {
    pub(super) fn new(id: ProcessId, exit: watch::Receiver<Option<Exit>>, stdin: Option<ChildStdin>, tasks: TaskScope) -> Self {
        Self { id, exit, stdin: Mutex::new(stdin), owned: true, adopted: false, tasks }
    }

    /// Takes over a process that another program started and left running. How it ends stays [unknown](Exit::UNKNOWN), unless that program
    /// was this process before; its output is not read, and signals reach it alone and not its group. Must be called inside a runtime.
    #[must_use]
    pub fn adopt(id: ProcessId) -> Self {
        let (report, exit) = watch::channel(None);
        let tasks = TaskScope::new("adopted child");
        tasks.spawn("wait", async move {
            id.gone().await;
            report.send_replace(Some(Exit::reap(id).unwrap_or(Exit::UNKNOWN)));
        });
        Self { id, exit, stdin: Mutex::default(), owned: true, adopted: true, tasks }
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
        if self.exit().is_some() {
            return;
        }
        let sent = if self.adopted {
            // Reaped by others: at any moment its pid, and so the group's id, may belong to somebody else.
            self.id.signal(signal).map(drop)
        } else if self.id.is_known() {
            // Known until it is reaped here: its pid is not reused.
            killpg(Pid::from_raw(self.id.pid), signal).map_err(io::Error::from)
        } else {
            Ok(())
        };
        if let Err(error) = sent {
            tracing::debug!(pid = self.id.pid, %signal, %error, "signal not delivered");
        }
    }

    /// Ends it: each rung in turn until it is gone, the kill always last.
    pub async fn shutdown(&self, ladder: &[Rung]) -> Stopped {
        for &rung in ladder {
            let timeout = match rung {
                Rung::Wait(timeout) => timeout,
                Rung::Signal(signal, timeout) => {
                    self.signal(signal);
                    timeout
                }
                Rung::Kill => break,
            };
            if let Ok(exit) = Deadline::after(timeout).bound(self.exited()).await {
                return Stopped { rung, exit: Some(exit) };
            }
        }
        self.signal(Signal::SIGKILL);
        let exit = Deadline::after(KILL_WAIT).bound(self.exited()).await.ok();
        Stopped { rung: Rung::Kill, exit }
    }

    /// Gives up ownership: it keeps running and is not killed on drop. Its piped output is no longer read.
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

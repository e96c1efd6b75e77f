//! The owner of a child process: the one place where a process is started.
//!
//! A child gets a session of its own (Ctrl-C of the terminal does not reach it), an environment with nothing inherited and no
//! descriptor but its three streams. It is *not* tied to its starter's life: agents outlive a killed node. Therefore
//! [`Output::Lines`] suits programs that survive a broken pipe; give others a file.
//!
//! Dropping a [`Child`] kills its process group; [`Child::release`] lets it live on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::deadline::Deadline;
use crate::lines;
use crate::process_id::ProcessId;
use crate::scope::TaskScope;

/// How long the kernel may take to end a process after SIGKILL before the owner gives up waiting.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long the exit is held back so that the last lines of output arrive before it.
const LAST_LINES: Duration = Duration::from_millis(250);

/// Takes lines of a child's output, without their line break; called from a task, so it must not block.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// What a child reads.
#[derive(Debug, Clone, Default)]
pub enum Stdin {
    /// Nothing.
    #[default]
    Null,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// What is given to [`Child::feed`] later.
    Held,
}

/// Where a child writes.
#[derive(Clone, Default)]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// Where its starter writes.
    Inherit,
    /// To the end of this file, which is made if need be (readable by its owner only).
    Append(PathBuf),
    /// Line by line to a function; a line longer than [`lines::MAX_LINE`] arrives in pieces.
    Lines(LineSink),
}

/// A process to start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: Option<PathBuf>,
    stdin: Stdin,
    stdout: Output,
    stderr: Output,
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program did not start.
    #[error("could not start {program}; check that the file exists and may be executed")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file for the output could not be opened.
    #[error("could not open {path} for the output of {program}")]
    Output {
        /// The program.
        program: PathBuf,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ChildSpec {
    /// A program with no arguments, an empty environment and closed streams.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            stdin: Stdin::Null,
            stdout: Output::Null,
            stderr: Output::Null,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one variable of the environment, which is otherwise empty.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets what it reads.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets where its standard output goes.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// Sets where its standard error goes.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }

    /// Starts it. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the program or a file for its output cannot be opened.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        let mut command = self.command()?;
        let failed = |source| SpawnError::Start { program: self.program.clone(), source };
        let mut process = command.spawn().map_err(failed)?;
        // Not reaped yet, so the pid is still its own even if it has already ended.
        let id = process.id().and_then(|pid| ProcessId::of(i32::try_from(pid).ok()?));
        let id = id.ok_or_else(|| failed(io::Error::other("the process is not in /proc; is /proc mounted?")))?;
        let tasks = TaskScope::new("child");
        let held = feed_stdin(&tasks, self.stdin, process.stdin.take());
        let mut pumps = JoinSet::new();
        if let (Output::Lines(sink), Some(pipe)) = (self.stdout, process.stdout.take()) {
            pumps.spawn(lines::pump(pipe, sink));
        }
        if let (Output::Lines(sink), Some(pipe)) = (self.stderr, process.stderr.take()) {
            pumps.spawn(lines::pump(pipe, sink));
        }
        let (report, exit) = watch::channel(None);
        tasks.spawn("wait", async move {
            let exit = process.wait().await.map_or(Exit::UNKNOWN, Exit::from);
            let last_lines = async { while pumps.join_next().await.is_some() {} };
            let _late = Deadline::after(LAST_LINES).bound(last_lines).await;
            report.send_replace(Some(exit));
            // A stream that a grandchild still holds open is read to its end, lest that one block.
            while pumps.join_next().await.is_some() {}
        });
        Ok(Child { id, exit, stdin: Mutex::new(held), owned: true, tasks })
    }

    #[expect(clippy::disallowed_methods, reason = "this file is the owner of child processes")]
    fn command(&self) -> Result<Command, SpawnError> {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command.stdin(if matches!(self.stdin, Stdin::Null) { Stdio::null() } else { Stdio::piped() });
        command.stdout(self.stdio(&self.stdout)?).stderr(self.stdio(&self.stderr)?);
        own_session(&mut command);
        Ok(Command::from(command))
    }

    fn stdio(&self, output: &Output) -> Result<Stdio, SpawnError> {
        use std::os::unix::fs::OpenOptionsExt;
        Ok(match output {
            Output::Null => Stdio::null(),
            Output::Inherit => Stdio::inherit(),
            Output::Lines(_) => Stdio::piped(),
            Output::Append(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|source| SpawnError::Output { program: self.program.clone(), path: path.clone(), source })?
                .into(),
        })
    }
}

#[expect(unsafe_code, reason = "std offers no safe way to start a child in its own session")]
fn own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let set = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe; nothing is allocated or locked.
    unsafe {
        command.pre_exec(set);
    }
}

fn feed_stdin(tasks: &TaskScope, stdin: Stdin, pipe: Option<ChildStdin>) -> Option<ChildStdin> {
    match (stdin, pipe) {
        (Stdin::Bytes(bytes), Some(mut pipe)) => {
            tasks.spawn("stdin", async move {
                // A child that does not read to the end is its own affair.
                let _unread = pipe.write_all(&bytes).await;
            });
            None
        }
        (Stdin::Held, pipe) => pipe,
        (Stdin::Null | Stdin::Bytes(_), _) => None,
    }
}

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

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Append(_) => "Append",
            Self::Lines(_) => "Lines",
        })
    }
}

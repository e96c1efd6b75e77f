//! Specifies a process and its streams, and starts it: the only place that does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::entry::Entry;
use super::exit::Exit;
use super::handle::Child;
use crate::deadline::Deadline;
use crate::lines::{self, LineSink};
use crate::process_id::ProcessId;
use crate::scope::TaskScope;

/// How long the exit is delayed so that the last lines of output arrive before it.
const LAST_LINES: Duration = Duration::from_millis(250);

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
    /// Discarded.
    #[default]
    Null,
    /// Where its starter writes.
    Inherit,
    /// To the end of this file, which is made if need be (readable by its owner only).
    Append(PathBuf),
    /// Into this file, at its present place. What limits the child's files (`RLIMIT_FSIZE`) limits this one.
    File(Arc<File>),
    /// Line by line to a function; a line longer than [`lines::MAX_LINE`] arrives in pieces. A child that writes more after its starter has
    /// died breaks its pipe.
    Lines(LineSink),
    /// The same, by a pipe that never breaks and never makes its child wait: what nobody takes, be it that its starter has died, is lost.
    LossyLines(LineSink),
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
    inherited: Vec<Arc<OwnedFd>>,
    netns: Option<Netns>,
    run_as: Option<u32>,
    group: Option<u32>,
    no_new_privs: bool,
}

/// A network namespace.
#[derive(Debug, Clone)]
enum Netns {
    Path(PathBuf),
    Open(Arc<OwnedFd>),
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program did not start.
    #[error("could not start {program}; {}", advice(source))]
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
    /// Its network namespace could not be opened.
    #[error("could not open the network namespace {path} for {program}")]
    Namespace {
        /// The program.
        program: PathBuf,
        /// The namespace's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What to look at where a program does not start.
fn advice(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::WouldBlock => {
            "see how many processes its user, and this service or container, may have (ulimit -u, TasksMax=, pids.max)"
        }
        io::ErrorKind::OutOfMemory => {
            "there is no memory for another process: free some, or see what this service or container may have"
        }
        _ => "check that the file exists and may be executed",
    }
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
            inherited: Vec::new(),
            netns: None,
            run_as: None,
            group: None,
            no_new_privs: false,
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

    /// Sets its standard input.
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

    /// Gives it a descriptor, under the number that it has here. It stays open here as long as this specification does.
    #[must_use]
    pub fn inherit(mut self, fd: impl Into<Arc<OwnedFd>>) -> Self {
        self.inherited.push(fd.into());
        self
    }

    /// Starts it in the network namespace at that path. Needs root.
    #[must_use]
    pub fn netns(mut self, path: impl Into<PathBuf>) -> Self {
        self.netns = Some(Netns::Path(path.into()));
        self
    }

    /// Starts it in the network namespace that a descriptor holds. Needs root.
    #[must_use]
    pub fn netns_fd(mut self, netns: Arc<OwnedFd>) -> Self {
        self.netns = Some(Netns::Open(netns));
        self
    }

    /// Starts it as this user and the group of the same number, and in no other group. Needs root.
    #[must_use]
    pub fn run_as(mut self, id: u32) -> Self {
        self.run_as = Some(id);
        self
    }

    /// Leaves it in one more group than its user's, where it runs as another user: that of a device that it opens.
    #[must_use]
    pub fn group(mut self, id: u32) -> Self {
        self.group = Some(id);
        self
    }

    /// Keeps it from gaining privileges by executing another program.
    #[must_use]
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Starts it. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the program or a file for its output cannot be opened.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        let (mut command, lossy) = self.command()?;
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
        // Holds the child's ends of its pipes, which only the child is to have.
        drop(command);
        for (pipe, sink) in lossy {
            pumps.spawn(lines::pump(pipe, sink));
        }
        let (report, exit) = watch::channel(None);
        tasks.spawn("wait", async move {
            let exit = process.wait().await.map_or(Exit::UNKNOWN, Exit::from);
            let last_lines = async { while pumps.join_next().await.is_some() {} };
            let _late = Deadline::after(LAST_LINES).bound(last_lines).await;
            report.send_replace(Some(exit));
            // A stream that a grandchild still holds open is read to its end, so that the grandchild does not block.
            while pumps.join_next().await.is_some() {}
        });
        Ok(Child::new(id, exit, held, tasks))
    }

    #[expect(clippy::disallowed_methods, reason = "this crate is the owner of child processes")]
    fn command(&self) -> Result<(Command, Vec<(Receiver, LineSink)>), SpawnError> {
        let mut lossy = Vec::new();
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command.stdin(if matches!(self.stdin, Stdin::Null) { Stdio::null() } else { Stdio::piped() });
        command.stdout(self.stdio(&self.stdout, &mut lossy)?).stderr(self.stdio(&self.stderr, &mut lossy)?);
        self.entry()?.before_exec(&mut command);
        Ok((Command::from(command), lossy))
    }

    fn entry(&self) -> Result<Entry, SpawnError> {
        let open = |netns: &Netns| match netns {
            Netns::Open(netns) => Ok(Arc::clone(netns)),
            Netns::Path(path) => {
                let failed = |source| SpawnError::Namespace { program: self.program.clone(), path: path.clone(), source };
                std::fs::File::open(path).map(|file| Arc::new(file.into())).map_err(failed)
            }
        };
        Ok(Entry {
            netns: self.netns.as_ref().map(open).transpose()?,
            inherited: self.inherited.clone(),
            run_as: self.run_as,
            group: self.group.map(nix::unistd::Gid::from_raw),
            no_new_privs: self.no_new_privs,
        })
    }

    fn stdio(&self, output: &Output, lossy: &mut Vec<(Receiver, LineSink)>) -> Result<Stdio, SpawnError> {
        let failed = |source| SpawnError::Start { program: self.program.clone(), source };
        Ok(match output {
            Output::Null => Stdio::null(),
            Output::Inherit => Stdio::inherit(),
            Output::Lines(_) => Stdio::piped(),
            Output::LossyLines(sink) => {
                let (reader, writer) = lines::lossy_pipe().map_err(failed)?;
                lossy.push((reader, Arc::clone(sink)));
                writer.into()
            }
            Output::File(file) => file.try_clone().map_err(failed)?.into(),
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

fn feed_stdin(tasks: &TaskScope, stdin: Stdin, pipe: Option<ChildStdin>) -> Option<ChildStdin> {
    match (stdin, pipe) {
        (Stdin::Bytes(bytes), Some(mut pipe)) => {
            tasks.spawn("stdin", async move {
                // A child may end without reading everything.
                let _unread = pipe.write_all(&bytes).await;
            });
            None
        }
        (Stdin::Held, pipe) => pipe,
        (Stdin::Null | Stdin::Bytes(_), _) => None,
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Append(_) => "Append",
            Self::File(_) => "File",
            Self::Lines(_) => "Lines",
            Self::LossyLines(_) => "LossyLines",
        })
    }
}

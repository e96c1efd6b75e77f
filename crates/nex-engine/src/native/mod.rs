//! Native services: a program in its own process group, owned until every process of the group is gone.
//!
//! `nex_process::Child` does not fit: a service has its own `argv[0]`, retries a busy artifact, and needs the rest of its group killed
//! between the death of the leader and its reaping.
//!
//! ```text
//! start ──► running ──► leader dead ──► rest of the group killed ──► output drained ──► exit known
//!              │ stop: SIGINT ─ half of grace ─► SIGTERM ─ half of grace ─► SIGKILL
//!              └ drop: SIGKILL
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, prlimit};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::StartError;
use crate::launch::Launch;
use crate::output::{LineWriter, Stream};

mod artifact;
mod environment;
mod group;

use group::Group;

/// How long output is drained after the group is dead; only a process that left the group can still hold the pipe.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// How a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or -1 when a signal killed it.
    pub code: i32,
    /// The name of that signal, such as `SIGKILL`.
    pub signal: Option<String>,
}

/// What ended a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoppedBy {
    /// It had exited before.
    AlreadyExited,
    /// SIGINT.
    Sigint,
    /// SIGTERM.
    Sigterm,
    /// SIGKILL.
    Sigkill,
}

/// A running program. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Service {
    pid: u32,
    group: Arc<Group>,
    exit: watch::Receiver<Option<Exit>>,
    // Dropped with the service: ends the supervisor.
    _supervisor: JoinSet<()>,
}

impl Service {
    /// Validates the artifact and executes it. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Invalid`] if the artifact is not a program that runs here, [`StartError::Host`] if it cannot be executed.
    pub async fn start(launch: Launch) -> Result<Self, StartError> {
        let path = launch.artifact.clone();
        let check = tokio::task::spawn_blocking(move || artifact::check(&path));
        check.await.map_err(|error| StartError::host("check the artifact", io::Error::other(error)))??;
        let mut child = spawn(&launch).await?;
        let id = child.id().ok_or_else(|| StartError::host("find the program's id", io::ErrorKind::NotFound.into()))?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| StartError::host("find the program's id", io::ErrorKind::InvalidData.into()))?;
        let group = Arc::new(Group::new(pid));
        let started = limit_memory(pid, launch.limits.memory_bytes).and_then(|()| watch_death(pid));
        let death = started.inspect_err(|_error| group.signal(Signal::KILL))?;
        let (sender, exit) = watch::channel(None);
        let mut supervisor = JoinSet::new();
        let streams = (child.stdout.take(), child.stderr.take());
        let readers = {
            let output = launch.output;
            async move {
                tokio::join!(
                    forward(streams.0, LineWriter::new(output.clone(), Stream::Stdout)),
                    forward(streams.1, LineWriter::new(output, Stream::Stderr)),
                );
            }
        };
        let owned = Arc::clone(&group);
        supervisor.spawn(async move {
            let status = supervise(child, &death, &owned, readers).await;
            sender.send_replace(Some(describe(status)));
        });
        Ok(Self { pid: id, group, exit, _supervisor: supervisor })
    }

    /// Process id of the program, and id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the program has ended, its group is gone and its output is drained.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        exit.unwrap_or(Exit { code: -1, signal: None })
    }

    /// Stops the program: SIGINT, SIGTERM after half of `grace`, SIGKILL after all of it.
    pub async fn stop(&self, grace: Duration) -> StoppedBy {
        if self.exit.borrow().is_some() {
            return StoppedBy::AlreadyExited;
        }
        for (signal, stopped_by) in [(Signal::INT, StoppedBy::Sigint), (Signal::TERM, StoppedBy::Sigterm)] {
            self.group.signal(signal);
            if tokio::time::timeout(grace / 2, self.wait()).await.is_ok() {
                return stopped_by;
            }
        }
        self.group.signal(Signal::KILL);
        self.wait().await;
        StoppedBy::Sigkill
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

async fn spawn(launch: &Launch) -> Result<Child, StartError> {
    let directory = std::env::current_dir().unwrap_or_else(|_error| PathBuf::from("/"));
    let environment = environment::build(launch, &directory)?;
    let mut command = Command::new(&launch.artifact);
    command.arg0(&launch.name).args(&launch.argv).env_clear().envs(environment).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut attempts = 0;
    loop {
        match command.spawn() {
            // A child that another thread forked holds the descriptor through which the artifact was written, until it execs.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempts < 20 => {
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result.map_err(|error| StartError::host(format!("execute {}", launch.artifact.display()), error)),
        }
    }
}

/// Limits the address space of the program, which already runs but has not used much yet.
fn limit_memory(pid: Pid, bytes: u64) -> Result<(), StartError> {
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
fn watch_death(pid: Pid) -> Result<AsyncFd<OwnedFd>, StartError> {
    let descriptor =
        pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| StartError::host("watch the program", error.into()))?;
    #[expect(deprecated, reason = "an OwnedFd stays open as long as it is registered, which is all the new unsafe one asks")]
    let registered = AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE);
    registered.map_err(|error| StartError::host("watch the program", error))
}

async fn supervise(
    mut child: Child,
    death: &AsyncFd<OwnedFd>,
    group: &Group,
    readers: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    let ended = async {
        let dead = death.readable().await.map(|_ready| ());
        group.retire();
        dead?;
        child.wait().await
    };
    tokio::pin!(readers, ended);
    tokio::select! {
        status = &mut ended => {
            let _drained = tokio::time::timeout(DRAIN_TIMEOUT, readers).await;
            status
        }
        () = &mut readers => ended.await,
    }
}

async fn forward(stream: Option<impl AsyncRead + Unpin>, mut lines: LineWriter) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        lines.write(buffer.get(..count).unwrap_or_default());
    }
}

fn describe(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => Exit { code: status.code().unwrap_or(-1), signal: status.signal().map(signal_name) },
        Err(error) => {
            tracing::warn!(%error, "cannot wait for a native workload");
            Exit { code: -1, signal: None }
        }
    }
}

fn signal_name(number: i32) -> String {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    let name = names.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("signal {number}"))
}

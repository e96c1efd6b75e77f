//! Native services: a program in its own process group, owned until every process of the group is gone.
//!
//! `nex_process::Child` does not fit: a service has its own `argv[0]`, retries a busy artifact, and needs the rest of its group killed
//! between the death of the leader and its reaping.
//!
//! ```text
//! start ──► running ──► leader dead ──► rest of the group killed ──► output drained ──► exit known
//!              │ stop: SIGINT ─ half of grace ─► SIGTERM ─ half of grace ─► SIGKILL, or a signal of its own ─ grace ─► SIGKILL
//!              └ drop: SIGKILL
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nex_protocol::deploy::StopSignal;
use rustix::process::{Pid, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::StartError;
use crate::launch::Launch;
use crate::output::{LineWriter, Stream};

mod artifact;
mod beside;
mod environment;
mod files;
mod group;
mod image;
mod leader;
mod program;
mod signal;

pub use beside::Beside;
use files::Files;
use group::Group;
use leader::{limit_memory, watch_death};
use program::Program;

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
    /// The signal that its deployer chose, or its image names.
    OwnSignal,
    /// SIGKILL.
    Sigkill,
}

/// A running program. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Service {
    pid: u32,
    group: Arc<Group>,
    exit: watch::Receiver<Option<Exit>>,
    beside: Beside,
    /// The signal to end by, where its image says so.
    stop_signal: Option<Signal>,
    files: Files,
    // Dropped with the service: ends the supervisor.
    _supervisor: JoinSet<()>,
}

impl Service {
    /// Validates the artifact and executes it. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Invalid`] if the artifact is not a program that runs here, [`StartError::Host`] if it cannot be executed.
    pub async fn start(mut launch: Launch) -> Result<Self, StartError> {
        let files = place_files(&mut launch)?;
        let path = launch.artifact.clone();
        let check = tokio::task::spawn_blocking(move || artifact::check(&path));
        check.await.map_err(|error| StartError::host("check the artifact", io::Error::other(error)))??;
        let program = Program::of_artifact(&launch)?;
        Self::run(program, launch, files).await
    }

    /// Executes what an image says, whose root is this process's root; the artifact is the file in which it says so. Must be called in a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Invalid`] if the image names no program that runs here, [`StartError::Host`] if it cannot be executed.
    pub async fn start_image(mut launch: Launch) -> Result<Self, StartError> {
        let files = place_files(&mut launch)?;
        let (path, argv, environment) = (launch.artifact.clone(), launch.argv.clone(), launch.environment.clone());
        let found = tokio::task::spawn_blocking(move || image::program(&path, argv, environment));
        let program = found.await.map_err(|error| StartError::host("read the image", io::Error::other(error)))??;
        Self::run(program, launch, files).await
    }

    async fn run(program: Program, launch: Launch, files: Files) -> Result<Self, StartError> {
        let mut child = program.spawn().await?;
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
        let beside = Beside {
            artifact: program.path,
            environment: program.environment,
            directory: program.directory,
            memory_bytes: launch.limits.memory_bytes,
        };
        Ok(Self { pid: id, group, exit, beside, stop_signal: program.stop_signal, files, _supervisor: supervisor })
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

    /// What programs beside it are run with.
    #[must_use]
    pub fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Replaces files that it was started with, and then sends the program a signal, to it alone. Blocks on the file system.
    ///
    /// # Errors
    /// When a file cannot be written, or it was started without it: then no signal is sent.
    pub fn update(&self, new: &BTreeMap<String, String>, signal: Option<StopSignal>) -> io::Result<()> {
        self.files.replace(new)?;
        if let Some(signal) = signal.and_then(|signal| signal::named(signal.as_str())) {
            self.group.signal_leader(signal);
        }
        Ok(())
    }

    /// Stops the program: SIGINT, SIGTERM after half of `grace`, SIGKILL after all of it; with a signal of its own, its deployer's or its
    /// image's, that one, and SIGKILL.
    pub async fn stop(&self, grace: Duration, own: Option<StopSignal>) -> StoppedBy {
        if self.exit.borrow().is_some() {
            return StoppedBy::AlreadyExited;
        }
        let own = own.and_then(|own| signal::named(own.as_str())).or(self.stop_signal);
        let own = own.map(|own| (own, StoppedBy::OwnSignal));
        let usual = [(Signal::INT, StoppedBy::Sigint), (Signal::TERM, StoppedBy::Sigterm)];
        let rungs = own.as_ref().map_or(&usual[..], std::slice::from_ref);
        let each = grace / u32::try_from(rungs.len()).unwrap_or(1);
        for (signal, stopped_by) in rungs {
            self.group.signal(*signal);
            if tokio::time::timeout(each, self.wait()).await.is_ok() {
                return *stopped_by;
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

/// Scratch space is the working directory, or `/tmp` where that is an image's own.
fn place_files(launch: &mut Launch) -> Result<Files, StartError> {
    let own = std::env::current_dir().unwrap_or_else(|_error| "/".into());
    files::place(&mut launch.environment, &[own, "/tmp".into()])
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
        Ok(status) => Exit { code: status.code().unwrap_or(-1), signal: status.signal().map(signal::name_of) },
        Err(error) => {
            tracing::warn!(%error, "cannot wait for a native workload");
            Exit { code: -1, signal: None }
        }
    }
}

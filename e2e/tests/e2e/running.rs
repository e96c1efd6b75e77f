//! A command that runs in the background: its output arrives as it is written, and dropping it ends it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ended::{Ended, TIMEOUT, exit_code};

/// How long a node of a failed test may take to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A command that was started and not waited for.
pub(crate) struct Running {
    child: Child,
    output: Output,
    readers: JoinSet<()>,
    runtime: Handle,
}

/// Its output so far.
struct Output {
    out: watch::Receiver<String>,
    err: watch::Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command, runtime: &Handle) -> Self {
        let _inside = runtime.enter();
        let mut child = command.spawn().unwrap();
        let mut readers = JoinSet::new();
        let out = listen(child.stdout.take().unwrap(), &mut readers, runtime);
        let err = listen(child.stderr.take().unwrap(), &mut readers, runtime);
        Self { child, output: Output { out, err }, readers, runtime: runtime.clone() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// Waits until either stream contains a text; returns the standard output so far.
    #[track_caller]
    pub(crate) fn waits_for(&self, text: &str) -> String {
        let (mut out, mut err) = (self.output.out.clone(), self.output.err.clone());
        let said = within(&self.runtime, TIMEOUT, async {
            tokio::select! {
                Ok(_) = out.wait_for(|said| said.contains(text)) => true,
                Ok(_) = err.wait_for(|said| said.contains(text)) => true,
                else => false,
            }
        });
        let (out, err) = (self.out(), self.output.err.borrow().clone());
        let why = if said.is_none() { "in time" } else { "before it ended" };
        assert!(said == Some(true), "'{text}' was not printed {why}\nstdout: {out}\nstderr: {err}");
        out
    }

    /// Waits until either stream contains the expected text. Returns standard error if it contains the other text first or the command ends.
    pub(crate) fn says_either(&self, expected: &str, unexpected: &str) -> Result<(), String> {
        let (mut out, mut err) = (self.output.out.clone(), self.output.err.clone());
        let said = within(&self.runtime, TIMEOUT, async {
            tokio::select! {
                Ok(said) = out.wait_for(|said| said.contains(expected)) => said.contains(expected),
                Ok(said) = err.wait_for(|said| said.contains(expected) || said.contains(unexpected)) => said.contains(expected),
                else => false,
            }
        });
        if said == Some(true) { Ok(()) } else { Err(self.err()) }
    }

    /// Its standard output so far.
    pub(crate) fn out(&self) -> String {
        self.output.out.borrow().clone()
    }

    /// Its standard error so far.
    pub(crate) fn err(&self) -> String {
        self.output.err.borrow().clone()
    }

    /// Ctrl-C; waits for its end.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.ends()
    }

    /// `kill -9`; waits for its end.
    pub(crate) fn kill9(self) {
        self.signal(Signal::SIGKILL);
        self.ends();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Ended {
        let status = within(&self.runtime, TIMEOUT, self.child.wait());
        let Some(status) = status else { panic!("it did not end in time\nstdout: {}\nstderr: {}", self.out(), self.err()) };
        // Its streams close when it ends, unless a child that it left behind holds them.
        let readers = async { while self.readers.join_next().await.is_some() {} };
        within(&self.runtime, Duration::from_secs(1), readers);
        Ended { code: exit_code(status.unwrap()), stdout: self.out().into_bytes(), stderr: self.err() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.id().is_none() {
            return;
        }
        // The test has ended: give a node time to stop its children.
        self.signal(Signal::SIGINT);
        drop(within(&self.runtime, SHUTDOWN_TIMEOUT, self.child.wait()));
    }
}

fn listen(
    stream: impl AsyncRead + Unpin + Send + 'static,
    readers: &mut JoinSet<()>,
    runtime: &Handle,
) -> watch::Receiver<String> {
    let (sender, said) = watch::channel(String::new());
    let mut lines = BufReader::new(stream).lines();
    let listening = async move {
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|said| said.extend([line.as_str(), "\n"]));
        }
    };
    readers.spawn_on(listening, runtime);
    said
}

/// The result of a future, if it resolves in time.
fn within<F: Future>(runtime: &Handle, limit: Duration, work: F) -> Option<F::Output> {
    runtime.block_on(async { tokio::time::timeout(limit, work).await.ok() })
}

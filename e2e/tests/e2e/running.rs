//! A command that goes on in the background: what it says arrives as it says it, and dropping it ends it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::world::{Ended, PATIENCE, exit_code};

/// Time that a node of a failed test has to stop in order.
const FAREWELL: Duration = Duration::from_secs(10);

/// A command that was started and not waited for.
pub(crate) struct Running {
    child: Child,
    said: Said,
    readers: JoinSet<()>,
    runtime: Handle,
}

/// What it has said so far on its two streams.
struct Said {
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
        Self { child, said: Said { out, err }, readers, runtime: runtime.clone() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// Waits until it says something, on either stream; returns all it has said to standard output.
    #[track_caller]
    pub(crate) fn waits_for(&self, text: &str) -> String {
        let (mut out, mut err) = (self.said.out.clone(), self.said.err.clone());
        let said = within(&self.runtime, PATIENCE, async {
            tokio::select! {
                Ok(_) = out.wait_for(|said| said.contains(text)) => true,
                Ok(_) = err.wait_for(|said| said.contains(text)) => true,
                else => false,
            }
        });
        let (out, err) = (self.out(), self.said.err.borrow().clone());
        let why = if said.is_none() { "in time" } else { "before it ended" };
        assert!(said == Some(true), "'{text}' was not said {why}\nstdout: {out}\nstderr: {err}");
        out
    }

    /// Waits until it says what is hoped for, on either stream; or else gives what it says when it says the other thing, or ends.
    pub(crate) fn says_either(&self, hoped: &str, feared: &str) -> Result<(), String> {
        let (mut out, mut err) = (self.said.out.clone(), self.said.err.clone());
        let said = within(&self.runtime, PATIENCE, async {
            tokio::select! {
                Ok(said) = out.wait_for(|said| said.contains(hoped)) => said.contains(hoped),
                Ok(said) = err.wait_for(|said| said.contains(hoped) || said.contains(feared)) => said.contains(hoped),
                else => false,
            }
        });
        if said == Some(true) { Ok(()) } else { Err(self.err()) }
    }

    /// All it has said to standard output.
    pub(crate) fn out(&self) -> String {
        self.said.out.borrow().clone()
    }

    /// All it has said to standard error.
    pub(crate) fn err(&self) -> String {
        self.said.err.borrow().clone()
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
        let status = within(&self.runtime, PATIENCE, self.child.wait());
        let Some(status) = status else { panic!("it did not end in time\nstdout: {}\nstderr: {}", self.out(), self.err()) };
        // Its words end with it, unless a child of its own, which a killed one leaves behind, has them too.
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
        // The test is over, or has failed: a node gets the time to take its children along.
        self.signal(Signal::SIGINT);
        drop(within(&self.runtime, FAREWELL, self.child.wait()));
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

/// What some work brings, if it is done in time.
fn within<F: Future>(runtime: &Handle, limit: Duration, work: F) -> Option<F::Output> {
    runtime.block_on(async { tokio::time::timeout(limit, work).await.ok() })
}

//! A monitor's process: the end of its standard error is kept, and every step of work with it stops when it ends.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nex_process::{Child, ChildSpec, Deadline, Exit, LineSink, Output, ProcessId, crash_point};

use crate::error::{VmmError, in_time};
use crate::kind::VmmKind;

/// Lines of output, and characters of each, that an error shows.
const LAST_LINES: usize = 6;
const LINE_LENGTH: usize = 400;

type Tail = Arc<Mutex<VecDeque<String>>>;

/// A running monitor; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    vmm: VmmKind,
    child: Child,
    tail: Tail,
}

impl Process {
    /// Starts it. Its output goes to the console; the end of its standard error is kept too.
    pub(crate) fn start(vmm: VmmKind, spec: ChildSpec, console: &LineSink) -> Result<Self, VmmError> {
        let tail = Tail::default();
        let lines = tail_sink(&tail, console);
        let (stdout, stderr) = match vmm {
            // It writes its errors to standard output, with its guest's console, and dies of a broken pipe: its handler of that signal
            // complains, by the same pipe.
            VmmKind::Firecracker => (Output::LossyLines(Arc::clone(&lines)), Output::LossyLines(lines)),
            VmmKind::Qemu => (Output::Lines(Arc::clone(console)), Output::Lines(lines)),
        };
        let child = spec.stdout(stdout).stderr(stderr).spawn()?;
        crash_point("machine: its monitor is started");
        Ok(Self { vmm, child, tail })
    }

    /// Takes over one that another process started, whose output nobody reads any more.
    pub(crate) fn adopt(vmm: VmmKind, process: ProcessId) -> Self {
        Self { vmm, child: Child::adopt(process), tail: Tail::default() }
    }

    pub(crate) fn vmm(&self) -> VmmKind {
        self.vmm
    }

    pub(crate) fn id(&self) -> ProcessId {
        self.child.id()
    }

    pub(crate) async fn exited(&self) -> Exit {
        self.child.exited().await
    }

    pub(crate) async fn kill(&self) -> Exit {
        self.child.shutdown(&[]).await.exit.unwrap_or(Exit::UNKNOWN)
    }

    /// Runs the first steps with a new process; on failure the process has ended when this returns.
    pub(crate) async fn begin<T>(
        &self,
        by: Deadline,
        steps: impl Future<Output = Result<T, VmmError>> + Send,
    ) -> Result<T, VmmError> {
        let outcome = self.during(by, "start the machine", steps).await;
        if outcome.is_err() {
            let _exit = self.kill().await;
        }
        outcome
    }

    /// Runs a step with the process, until the deadline or its end.
    pub(crate) async fn during<T>(
        &self,
        by: Deadline,
        doing: &'static str,
        step: impl Future<Output = Result<T, VmmError>> + Send,
    ) -> Result<T, VmmError> {
        let ended = |exit| VmmError::Ended { vmm: self.vmm, exit, doing, said: self.stderr_tail() };
        let outcome = tokio::select! {
            // Both may be dropped at any point: an exit is remembered, and a step is not continued after its failure.
            biased;
            outcome = in_time(by, doing, step) => outcome,
            exit = self.child.exited() => return Err(ended(exit)),
        };
        match outcome {
            // A broken connection is often the first sign that the process ended, which says more.
            Err(VmmError::Malformed { .. } | VmmError::File { .. }) if let Some(exit) = self.end().await => Err(ended(exit)),
            outcome => outcome,
        }
    }

    async fn end(&self) -> Option<Exit> {
        Deadline::after(std::time::Duration::from_millis(300)).bound(self.child.exited()).await.ok()
    }

    fn stderr_tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.is_empty() { "nothing".to_owned() } else { Vec::from_iter(tail.iter().map(String::as_str)).join(" / ") }
    }
}

/// Passes lines on and keeps the last ones, printable and short.
fn tail_sink(tail: &Tail, console: &LineSink) -> LineSink {
    let (tail, console) = (Arc::clone(tail), Arc::clone(console));
    Arc::new(move |line: &str| {
        let kept = printable(line, LINE_LENGTH);
        if !kept.trim().is_empty() {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == LAST_LINES {
                tail.pop_front();
            }
            tail.push_back(kept);
        }
        console(line);
    })
}

/// Runs a monitor as that user, and in the group of `/dev/kvm` unless that is root's.
pub(crate) fn run_as(child: ChildSpec, user: u32) -> ChildSpec {
    use std::os::unix::fs::MetadataExt;
    let group = std::fs::metadata("/dev/kvm").ok().filter(|device| device.mode() & 0o060 == 0o060).map(|device| device.gid());
    let child = child.run_as(user);
    match group {
        Some(group) if group != 0 => child.group(group),
        _ => child,
    }
}

/// Asks the program for its version, which follows the prefix.
pub(crate) async fn ask_version(vmm: VmmKind, program: &Path, prefix: &str, by: Deadline) -> Result<String, VmmError> {
    let tail = Tail::default();
    let child = ChildSpec::new(program)
        .args(["--version"])
        .stdout(Output::Lines(tail_sink(&tail, &(Arc::new(|_: &str| {}) as LineSink))));
    let child = child.spawn()?;
    if by.bound(child.exited()).await.is_err() {
        return Err(VmmError::Late { doing: "ask for the version" });
    }
    let lines = tail.lock().unwrap_or_else(PoisonError::into_inner);
    let version = lines.iter().find_map(|line| line.strip_prefix(prefix)?.split_ascii_whitespace().next());
    let why = || format!("no line of its version output begins with {prefix:?}");
    version.map(|version| printable(version, 40)).ok_or_else(|| VmmError::Malformed { vmm, why: why() })
}

/// The beginning of an untrusted text, without control characters.
pub(crate) fn printable(text: &str, length: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(length).collect()
}

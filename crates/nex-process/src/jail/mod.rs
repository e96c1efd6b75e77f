//! What an agent does to itself before it starts its first thread: it locks itself in.
//!
//! ```text
//! node ── stage 1 ──┊── init (pid 1) ── agent (pid 2) ── workload
//!         only waits ┊   reaps, forwards   `enter` returns here
//!         and passes ┊   signals
//!         signals on ┊ everything right of the line is confined and dies with stage 1
//! ```
//!
//! Order: namespaces, root directory, limits, capabilities and identity, Landlock, seccomp, then the fork of the agent. The init is
//! as confined as the agent. Nothing here starts a thread, and the caller must not have started one.
//!
//! **The network** is the namespace that the node started stage 1 in: one of its own where the node can make that, the host's elsewhere.
//!
//! **Files of the host that are seen**, read-only: `/usr` with its programs and libraries, names and certificates of `/etc`.

mod fork;
mod landlock;
mod namespaces;
mod privileges;
mod probe;
mod root;
mod seccomp;
mod spec;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

pub use fork::KILL_SIGNAL;
pub use probe::{detect, probe_main};
pub use spec::{JailSpec, MAX_LINE, ProcessLimits};

use crate::confinement::{Confinement, Layer, Mode, Part, UserLayer};

/// What the innermost process gets. Its `Debug` leaves the identity out: it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Entered {
    /// The second line that was read, untouched.
    pub identity: Vec<u8>,
    /// What confines this process now.
    pub report: Confinement,
    /// Where its directories are.
    pub layout: Layout,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").field("report", &self.report).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// The directories of a jailed process, as it sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Files from the node, read-only.
    pub artifact: PathBuf,
    /// Scratch space, gone with the process; the working directory.
    pub work: PathBuf,
}

impl Layout {
    /// The directories that a jail of this spec has.
    #[must_use]
    pub fn of(spec: &JailSpec) -> Self {
        match (&spec.mode, &spec.work_dir) {
            (Mode::Plain, Some(work)) => Self { artifact: spec.artifact_dir.clone(), work: work.clone() },
            _ => Self { artifact: "/artifact".into(), work: "/work".into() },
        }
    }
}

/// The jail could not be made. Nothing was started; the process must end.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The two lines did not arrive.
    #[error("the specification of the jail could not be read from stdin; an agent is started by a node, not by hand")]
    Unread(#[source] io::Error),
    /// A line is longer than [`MAX_LINE`].
    #[error("the specification of the jail or the identity is longer than {MAX_LINE} bytes; start the agent with a shorter one")]
    TooLong,
    /// The first line is not a specification.
    #[error("the specification of the jail was not understood; node and agent must be of the same build")]
    Spec(#[source] serde_json::Error),
    /// The specification contradicts itself.
    #[error("the specification of the jail is unusable: {0}")]
    Contradiction(&'static str),
    /// The caller has started threads.
    #[error("the jail must be entered before the first thread is started, but there are {0}")]
    Threads(u64),
    /// A step failed.
    #[error("the jail could not be made: {step} failed; {advice}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What to do.
        advice: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something could not be put into the new root.
    #[error(
        "the jail could not be made: {path} could not be put into its root; check that it exists and that mounts are allowed"
    )]
    Mount {
        /// The path inside the jail.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A layer that is required is not available.
    #[error("the jail would lack {part}, which the node requires: {reason}; use a host that has it, or stop requiring it")]
    Required {
        /// The layer.
        part: Part,
        /// Why it is missing.
        reason: String,
    },
}

impl JailError {
    fn step<E: Into<io::Error>>(step: &'static str, advice: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Step { step, advice, source: source.into() }
    }
}

/// Reads a [`JailSpec`] and the identity, a line each, confines this process and returns in the innermost one.
///
/// The processes in between never return; they exit with the innermost one's status (128 and the signal, if one ended it).
///
/// # Errors
/// When a step fails or a required layer is missing. This may return in a process that is already half confined: print the
/// error and exit, nothing else.
pub fn enter(mut stdin: impl Read) -> Result<Entered, JailError> {
    let (spec, identity) = spec::read(&mut stdin)?;
    let report = confine(&spec)?;
    Ok(Entered { identity, report, layout: Layout::of(&spec) })
}

/// Does something for which a process needs to see its own `/proc` entries, which hiding its memory has closed to it, too.
///
/// Only where nobody else is: before there is a workload, in a process that [`enter`] gave a uid or a pid namespace of its own.
/// Anywhere else the work is done as it is.
pub fn while_visible<T>(report: &Confinement, work: impl FnOnce() -> T) -> T {
    use nix::sys::prctl;
    let alone = report.namespaces == Layer::Held || matches!(report.user, UserLayer::OwnUid { .. });
    let shown = alone && prctl::set_dumpable(true).is_ok();
    let done = work();
    if shown && prctl::set_dumpable(false).is_err() {
        // Cannot happen: the call has no other failure than an unknown argument.
        std::process::abort();
    }
    done
}

fn confine(spec: &JailSpec) -> Result<Confinement, JailError> {
    spec.check()?;
    single_threaded()?;
    let namespaced = spec.mode != Mode::Plain;
    let guard = if namespaced { Some(namespaces::enter(spec)?) } else { None };
    if namespaced {
        root::build(spec)?;
    }
    privileges::drop_all(spec)?;
    let layout = Layout::of(spec);
    std::env::set_current_dir(&layout.work)
        .map_err(JailError::step("entering the work directory", "check that it may be used by the agent's uid"))?;
    let landlock = landlock::restrict(spec, &layout)?;
    let seccomp = seccomp::restrict()?;
    let report = report(spec, landlock, seccomp);
    if let Some((part, reason)) = report.lacks(&spec.require) {
        return Err(JailError::Required { part, reason: reason.to_owned() });
    }
    if let Some(guard) = guard {
        fork::split_agent(guard)?;
    }
    Ok(report)
}

fn report(spec: &JailSpec, landlock: crate::confinement::LandlockLayer, seccomp: Layer) -> Confinement {
    let reason = || spec.mode_reason.clone().unwrap_or_else(|| "not asked for".to_owned());
    let namespaces = match spec.mode {
        Mode::Privileged | Mode::UserNamespace => Layer::Held,
        Mode::Plain => Layer::Missing { reason: reason() },
    };
    let user = match (spec.mode, spec.uid) {
        (Mode::UserNamespace, _) => UserLayer::UserNamespace,
        (Mode::Privileged | Mode::Plain, Some(uid)) => UserLayer::OwnUid { uid },
        (Mode::Privileged | Mode::Plain, None) => UserLayer::Shared { reason: reason() },
    };
    Confinement {
        mode: spec.mode,
        root: namespaces.clone(),
        namespaces,
        user,
        cgroup: spec.cgroup.clone(),
        seccomp,
        landlock,
        network: spec.network.clone(),
    }
}

/// A namespace, a uid and a filter are put on a thread; only a process of one thread is wholly confined.
fn single_threaded() -> Result<(), JailError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(JailError::step("reading /proc/self/status", "mount /proc on this host"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok()).unwrap_or(0);
    if threads == 1 { Ok(()) } else { Err(JailError::Threads(threads)) }
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl;

    use super::*;
    use crate::confinement::{CgroupLayer, LandlockLayer};

    #[test]
    fn a_process_shows_itself_only_where_it_is_alone_and_only_for_as_long_as_it_has_to() {
        let missing = || Layer::Missing { reason: "a test".to_owned() };
        let confined = |user| Confinement {
            mode: Mode::Plain,
            namespaces: missing(),
            root: missing(),
            user,
            cgroup: CgroupLayer::default(),
            seccomp: Layer::Held,
            landlock: LandlockLayer { abi: 0, reason: None },
            network: missing(),
        };
        let alone = while_visible(&confined(UserLayer::OwnUid { uid: 7 }), prctl::get_dumpable);
        assert_eq!((alone, prctl::get_dumpable()), (Ok(true), Ok(false)));
        let shared = while_visible(&confined(UserLayer::Shared { reason: "a test".to_owned() }), prctl::get_dumpable);
        assert_eq!(shared, Ok(false));
        prctl::set_dumpable(true).unwrap();
    }
}

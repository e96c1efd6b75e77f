//! Probes the confinement that this host offers by entering jails in short-lived children, the best one first.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, geteuid, pipe2};
use serde::{Deserialize, Serialize};

use super::confine::{confine, single_threaded};
use super::error::JailError;
use super::fork;
use super::spec::{JailSpec, ProcessLimits};
use crate::confinement::{CgroupLayer, Confinement, Layer, Mode};

/// A report is a few hundred bytes; more than this is no report.
const MAX_REPORT: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Confined(Confinement),
    Failed(String),
}

/// The strongest confinement that can be had, each missing layer with its reason; nothing is required. Group and network are for the
/// caller to fill in, since a process is put into them from outside. `uid` is one that an agent would get if this is root.
///
/// # Errors
/// When the process has threads already, or can neither fork nor confine itself at all.
pub fn detect(uid: u32) -> Result<Confinement, JailError> {
    single_threaded()?;
    let own = Some(uid);
    let ways: &[(Mode, Option<u32>)] = if geteuid().is_root() {
        // Root of a container may lack the capabilities for the first, and the uids for the third.
        &[(Mode::Privileged, own), (Mode::UserNamespace, None), (Mode::Plain, own), (Mode::Plain, None)]
    } else {
        &[(Mode::UserNamespace, None), (Mode::Plain, None)]
    };
    let (mut reason, mut last) = (None, String::new());
    for &(mode, uid) in ways {
        match attempt(&spec(mode, uid, reason.clone()))? {
            Outcome::Confined(confinement) => return Ok(confinement),
            // Report the first reason: why the best way does not work.
            Outcome::Failed(text) => {
                last.clone_from(&text);
                reason.get_or_insert(text);
            }
        }
    }
    Err(JailError::Step {
        step: "trying every kind of jail",
        advice: "check the kernel's log and the limits of the node's own service or container",
        source: io::Error::other(last),
    })
}

/// Prints what [`detect`] finds as one line of JSON: what `nex-agent --probe <uid>` does.
#[must_use]
pub fn probe_main(uid: u32) -> ExitCode {
    let line = match detect(uid) {
        Ok(confinement) => serde_json::to_string(&confinement).unwrap_or_default(),
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}

/// Any directory serves: nothing is written, and every mount is gone with the child.
fn spec(mode: Mode, uid: Option<u32>, mode_reason: Option<String>) -> JailSpec {
    JailSpec {
        mode,
        mode_reason,
        uid,
        artifact_dir: "/usr".into(),
        work_dir: (mode == Mode::Plain).then(|| "/".into()),
        tmp_bytes: 1 << 20,
        limits: ProcessLimits { open_files: 64, processes: None, file_bytes: 1 << 20, data_bytes: None },
        cgroup: CgroupLayer::default(),
        network: Layer::Held,
        no_network: false,
        resolv_conf: None,
        image: None,
        require: Vec::new(),
    }
}

fn attempt(spec: &JailSpec) -> Result<Outcome, JailError> {
    let advice = "the host has no room; try again";
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(JailError::step("making a pipe", advice))?;
    match fork::split()? {
        ForkResult::Child => {
            drop(read);
            // The innermost process, or the one that failed, reports and exits.
            let outcome = confine(spec).map_or_else(|error| Outcome::Failed(brief(&error)), Outcome::Confined);
            let _unheard = serde_json::to_writer(File::from(write), &outcome);
            fork::exit(0)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut report = Vec::new();
            let read = File::from(read).take(MAX_REPORT).read_to_end(&mut report);
            let _reaped = waitpid(child, None);
            read.map_err(JailError::step("reading the report of a trial", advice))?;
            Ok(serde_json::from_slice(&report).unwrap_or_else(|_unreadable| Outcome::Failed("the trial died".to_owned())))
        }
    }
}

/// A reason for a report, where the advice of an error would be noise.
fn brief(error: &JailError) -> String {
    match error {
        JailError::Step { step, source, .. } => format!("{step} failed: {source}"),
        JailError::Mount { path, source } => format!("mounting {} failed: {source}", path.display()),
        other => chain(other),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

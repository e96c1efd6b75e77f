//! Confines the calling process as a specification says.

use std::fs;

use super::error::JailError;
use super::layout::Layout;
use super::spec::JailSpec;
use super::{fork, image, landlock, namespaces, privileges, root, seccomp};
use crate::confinement::{Confinement, LandlockLayer, Layer, Mode, UserLayer};

/// Applies every layer; returns in the innermost process with a report of what holds.
pub(super) fn confine(spec: &JailSpec) -> Result<Confinement, JailError> {
    spec.check()?;
    single_threaded()?;
    let namespaced = spec.mode != Mode::Plain;
    let guard = if namespaced { Some(namespaces::enter(spec)?) } else { None };
    if namespaced {
        match &spec.image {
            Some(file) => image::build(spec, file)?,
            None => root::build(spec)?,
        }
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

fn report(spec: &JailSpec, landlock: LandlockLayer, seccomp: Layer) -> Confinement {
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

/// Namespaces, uid and filters apply to a thread, so only a single-threaded process is confined as a whole.
pub(super) fn single_threaded() -> Result<(), JailError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(JailError::step("reading /proc/self/status", "mount /proc on this host"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok()).unwrap_or(0);
    if threads == 1 { Ok(()) } else { Err(JailError::Threads(threads)) }
}

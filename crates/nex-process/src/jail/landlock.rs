//! Landlock rules for files and signals, independent of ownership: read and execute everywhere, write only to the scratch directories.
//!
//! With an own root, "everywhere" is that root; without one it is a short list of system directories. An image has memory over all of it,
//! which is one more scratch directory.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use super::error::JailError;
use super::layout::Layout;
use super::root::{ETC, SYSTEM};
use super::spec::JailSpec;
use crate::confinement::{LandlockLayer, Mode};

/// The newest rules known here; an older kernel takes what it knows of them.
const WANTED: ABI = ABI::V7;

const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm"];

/// Restricts this thread and everything it will start; reports the kernel's ABI, or why there is none.
pub(super) fn restrict(spec: &JailSpec, layout: &Layout) -> Result<LandlockLayer, JailError> {
    let status = apply(spec, layout).map_err(|error| JailError::Step {
        step: "applying Landlock rules",
        advice: "report this kernel",
        source: std::io::Error::other(error),
    })?;
    let missing = |reason: &str| LandlockLayer { abi: 0, reason: Some(reason.to_owned()) };
    Ok(match status {
        LandlockStatus::NotImplemented => missing("this kernel is built without Landlock (it needs 5.13 or later)"),
        LandlockStatus::NotEnabled => missing("Landlock is not enabled; add it to the kernel's lsm= list"),
        LandlockStatus::Available { effective_abi, .. } => LandlockLayer { abi: effective_abi as u32, reason: None },
    })
}

fn apply(spec: &JailSpec, layout: &Layout) -> Result<LandlockStatus, RulesetError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(WANTED))?.scope(Scope::from_all(WANTED))?;
    let created = ruleset
        .create()?
        .add_rules(path_beneath_rules(readable(spec, layout), AccessFs::from_read(WANTED)))?
        .add_rules(path_beneath_rules(writable(spec, layout), AccessFs::from_all(WANTED)))?;
    Ok(created.restrict_self()?.landlock)
}

fn readable(spec: &JailSpec, layout: &Layout) -> Vec<PathBuf> {
    if spec.mode != Mode::Plain {
        return vec![PathBuf::from("/")];
    }
    let system = SYSTEM.iter().map(|name| Path::new("/").join(name));
    let etc = ETC.iter().map(|name| Path::new("/etc").join(name));
    system.chain(etc).chain(["/proc".into(), layout.artifact.clone()]).collect()
}

fn writable(spec: &JailSpec, layout: &Layout) -> Vec<PathBuf> {
    if spec.image.is_some() {
        return vec!["/".into()];
    }
    let mut paths = vec![layout.work.clone()];
    if spec.mode != Mode::Plain {
        paths.push("/tmp".into());
    }
    // No write access to the host's shared memory.
    let devices = DEVICES.iter().filter(|path| spec.mode != Mode::Plain || **path != "/dev/shm");
    paths.extend(devices.map(PathBuf::from));
    paths
}

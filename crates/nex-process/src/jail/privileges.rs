//! Takes away what a process may do: resource limits, capabilities, identity, the ways back.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::error::JailError;
use super::spec::JailSpec;
use crate::confinement::Mode;

/// Applies limits, drops every capability for good, becomes the own uid.
pub(super) fn drop_all(spec: &JailSpec) -> Result<(), JailError> {
    limit(spec).map_err(JailError::step("setting resource limits", "check the limits in the node's configuration"))?;
    drop_bounding_set().map_err(JailError::step("emptying the capability bounding set", "report this kernel"))?;
    if let (Mode::Privileged | Mode::Plain, Some(uid)) = (spec.mode, spec.uid) {
        become_uid(uid)
            .map_err(JailError::step("changing to the agent's own uid", "check that uid_base is mapped in this container"))?;
    }
    let advice = "report this kernel";
    rustix::thread::clear_ambient_capability_set().map_err(JailError::step("clearing ambient capabilities", advice))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(JailError::step("dropping capabilities", advice))?;
    prctl::set_no_new_privs().map_err(JailError::step("setting no_new_privs", advice))?;
    // A workload has the agent's uid, but must not read the agent's memory or environment, where its credentials are.
    // The workload itself becomes an ordinary process again when it is executed.
    prctl::set_dumpable(false).map_err(JailError::step("hiding the agent's memory", advice))
}

fn limit(spec: &JailSpec) -> nix::Result<()> {
    let limits = &spec.limits;
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_NOFILE, limits.open_files)?;
    lower(Resource::RLIMIT_FSIZE, limits.file_bytes)?;
    // Locked memory and message queues are kernel memory that no other limit bounds.
    lower(Resource::RLIMIT_MEMLOCK, 8 << 20)?;
    lower(Resource::RLIMIT_MSGQUEUE, 1 << 20)?;
    if let Some(processes) = limits.processes {
        lower(Resource::RLIMIT_NPROC, processes)?;
    }
    if let Some(bytes) = limits.data_bytes {
        lower(Resource::RLIMIT_DATA, bytes)?;
    }
    Ok(())
}

/// Sets both limits; never above the present hard limit, which even root may be unable to raise.
fn lower(resource: Resource, value: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let value = value.min(hard);
    setrlimit(resource, value, value)
}

fn drop_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) => break,
            // An ordinary process lacks CAP_SETPCAP and cannot drop them; no_new_privs makes its bounding set irrelevant.
            Err(rustix::io::Errno::PERM) if !may_change_bounding_set()? => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn may_change_bounding_set() -> io::Result<bool> {
    Ok(rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP))
}

fn become_uid(uid: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

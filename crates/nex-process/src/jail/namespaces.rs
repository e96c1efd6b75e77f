//! Stage 1: makes the namespaces, fork the init of the new pid namespace, and from then on only waits for it.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use super::error::JailError;
use super::fork::{self, Guard};
use super::spec::JailSpec;
use crate::confinement::Mode;

const ALLOW: &str = "allow namespaces on this host, or give the node no more than the plain jail";
const ALLOW_USER: &str = "allow user namespaces for ordinary users on this host (sysctl kernel.unprivileged_userns_clone, \
                          user.max_user_namespaces, AppArmor's restriction), or run the node as root";

/// Makes the namespaces and fork. Returns in the init; stage 1 exits inside, with the init's status.
pub(super) fn enter(spec: &JailSpec) -> Result<Guard, JailError> {
    // If the host runs out of memory, agents are killed before other processes. Any user may raise this value.
    let _unsupported = fs::write("/proc/self/oom_score_adj", "500");
    if spec.mode == Mode::UserNamespace {
        own_user()?;
    }
    let no_network = if spec.no_network { CloneFlags::CLONE_NEWNET } else { CloneFlags::empty() };
    let flags = no_network
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(flags).map_err(JailError::step("making mount, pid, IPC, host name and cgroup namespaces", ALLOW))?;
    fork::split_init()
}

/// A user namespace with one uid and one gid, each mapped to itself: the workload sees its own ids and has no others.
fn own_user() -> Result<(), JailError> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(JailError::step("making a user namespace", ALLOW_USER))?;
    let maps = || -> io::Result<()> {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
    };
    maps().map_err(JailError::step("mapping the own id into a user namespace", ALLOW_USER))
}

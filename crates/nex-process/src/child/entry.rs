//! What a child does between fork and exec: its session, namespace, descriptors and user.
//!
//! Another thread of the parent may have held any lock when it forked, so nothing here allocates, locks or logs: system calls only.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};

/// What is prepared before the fork.
pub(super) struct Entry {
    pub(super) netns: Option<Arc<OwnedFd>>,
    pub(super) inherited: Vec<Arc<OwnedFd>>,
    pub(super) run_as: Option<u32>,
    pub(super) group: Option<Gid>,
    pub(super) no_new_privs: bool,
}

impl Entry {
    #[expect(unsafe_code, reason = "std offers no safe way to act between fork and exec")]
    pub(super) fn before_exec(self, command: &mut Command) {
        let enter = move || self.enter();
        // SAFETY: `enter` makes system calls only, through thin wrappers that neither allocate nor lock; what it reads was made before the fork.
        unsafe {
            command.pre_exec(enter);
        }
    }

    /// The order matters: a namespace needs root, and who drops the user first cannot drop groups any more.
    fn enter(&self) -> io::Result<()> {
        setsid()?;
        if let Some(netns) = &self.netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        for fd in &self.inherited {
            // Only in this child is it open across the exec; its number is free of clashes because it is the parent's own.
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(id) = self.run_as {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            setgroups(self.group.as_slice())?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        if self.no_new_privs {
            nix::sys::prctl::set_no_new_privs()?;
        }
        Ok(())
    }
}

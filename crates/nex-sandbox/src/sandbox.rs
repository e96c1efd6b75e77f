//! The two traits that every kind of sandbox implements.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nex_process::Deadline;
use nex_process::cgroup::MemoryUse;
use nex_process::usage::{self, ResourceUse};

use crate::error::{AttachError, CreateError};
use crate::id::SandboxId;
use crate::record::SandboxRecord;
use crate::report::ExitReport;
use crate::spec::SandboxSpec;

/// Makes sandboxes of one kind.
pub trait SandboxProvider: Send + Sync + 'static {
    /// Makes one and starts its agent; does not wait for a handshake.
    fn create(&self, spec: SandboxSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Sandbox>, CreateError>>;
}

/// A sandbox with one agent in it. Dropping it kills the agent and removes the sandbox.
pub trait Sandbox: Send + Sync {
    /// Its name.
    fn id(&self) -> &SandboxId;

    /// Makes a file of the host readable (and executable) inside, without copying it where the file system allows. The file must
    /// belong to the node and never change. Doing it again with the same file is fine.
    ///
    /// Returns the path that the agent sees.
    ///
    /// # Errors
    /// When the name is unusable or taken by another file, or the file cannot be linked, copied or attached.
    fn attach_file<'a>(&'a self, file: &'a Path, name: &'a str) -> BoxFuture<'a, Result<PathBuf, AttachError>>;

    /// Takes back a file that was attached; whoever has it open keeps it. A machine keeps its drive.
    fn detach_file<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }

    /// Restricts a jailed process with its own network to the internal bus and the user's NATS servers. Does nothing for a process on the
    /// host's network and for a machine.
    ///
    /// # Errors
    /// When its device is gone or the kernel refuses.
    fn restrict_network(&self) -> BoxFuture<'_, Result<(), nex_network::NetworkError>> {
        async { Ok(()) }.boxed()
    }

    /// Waits until its agent has ended. May be dropped and called again.
    fn exited(&self) -> BoxFuture<'_, ExitReport>;

    /// How much memory it may have and had at most, where the host counts that.
    fn memory(&self) -> Option<MemoryUse> {
        None
    }

    /// What its processes use, the agent and a machine's monitor included. Reads files of the kernel.
    fn usage(&self) -> Option<ResourceUse> {
        let record = self.record();
        usage::of(record.cgroup.as_ref(), record.leader)
    }

    /// Asks the agent to end, kills it after the grace period, and removes the sandbox; its network device may take a moment longer, so its
    /// id is not used again.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ExitReport>;

    /// Everything that another node process needs to find and remove it.
    fn record(&self) -> SandboxRecord;
}

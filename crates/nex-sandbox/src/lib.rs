//! Where agents live: the host that hold one agent each, and what makes and removes them.
//!
//! [`process`] is a jailed child process, [`microvm`] a machine with its own kernel. A sandbox knows nothing of what its agent does, and nothing of
//! NATS. It is used once and never again.
//!
//! Nothing leaks: a creation that fails removes what it had made, a dropped sandbox is killed and removed, and what a killed node
//! leaves behind is found by its [`SandboxRecord`] or by a provider's sweep.

mod host;
pub mod microvm;
mod output;
pub mod process;
mod record;
mod removal;
mod tree;
mod uids;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nex_process::cgroup::CgroupError;
use nex_process::{Deadline, Elapsed, Exit, SpawnError};
use serde::{Deserialize, Serialize};

pub use record::{SandboxRecord, remove_leftover};

/// Names a sandbox on its node; safe as a file name and as part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// Longest id.
    pub const MAX: usize = 64;

    /// Accepts letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`InvalidName`] for anything else, for nothing and for more than [`Self::MAX`] characters.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(plain) {
            return Err(InvalidName::of(&text));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that could lead out of its directory or break a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no usable name; use letters, digits, '-' and '_' (in file names also '.', not first)")]
pub struct InvalidName(String);

impl InvalidName {
    fn of(name: &str) -> Self {
        Self(name.chars().take(80).collect())
    }
}

/// One sandbox to make.
#[derive(Clone)]
pub struct SandboxSpec {
    /// Its name, never used before on this node.
    pub id: SandboxId,
    /// What its agent is told about itself: one line, no line break. A secret.
    pub identity: Vec<u8>,
    /// How large it is; the provider's own size if absent.
    pub size: Option<MachineSize>,
}

/// What a sandbox has of the host: the size of a machine, or the limits of a process that count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineSize {
    /// Virtual processors.
    pub vcpus: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
}

impl fmt::Display for MachineSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vCPU, {} MiB", self.vcpus, self.memory_mib)
    }
}

impl fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxSpec").field("id", &self.id).field("size", &self.size).finish_non_exhaustive()
    }
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// How its first process ended; unknown for one that was adopted.
    pub exit: Exit,
    /// Whether the kernel killed something in it because its memory ran out.
    pub out_of_memory: bool,
    /// The last lines that its agent wrote to standard error.
    pub stderr_tail: Vec<String>,
}

/// Lines of the last words that stand in a message.
const SHOWN_LINES: usize = 3;

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.exit)?;
        if self.out_of_memory {
            f.write_str(", out of memory")?;
        }
        // The very last line may be the kernel's, which only says that the machine goes down.
        let shown = self.stderr_tail.len().saturating_sub(SHOWN_LINES);
        match self.stderr_tail.get(shown..).filter(|lines| !lines.is_empty()) {
            Some(lines) => write!(f, ": {}", lines.join(" / ")),
            None => Ok(()),
        }
    }
}

/// Makes sandboxes of one kind.
pub trait SandboxProvider: Send + Sync + 'static {
    /// Makes one and starts its agent; does not wait for the agent to say anything.
    fn create(&self, spec: SandboxSpec, by: Deadline) -> BoxFuture<'_, Result<Box<dyn Sandbox>, CreateError>>;
}

/// One place with one agent in it. Dropping it kills the agent and removes the place.
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
    fn admit<'a>(&'a self, file: &'a Path, name: &'a str) -> BoxFuture<'a, Result<PathBuf, AdmitError>>;

    /// Leaves a jailed process with a network of its own no more than the internal bus and the user's NATS servers. What has none, or
    /// is a machine, stays as it is.
    ///
    /// # Errors
    /// When its device is gone or the kernel refuses.
    fn restrict_network(&self) -> BoxFuture<'_, Result<(), nex_network::NetworkError>> {
        async { Ok(()) }.boxed()
    }

    /// Waits until its agent has ended. May be dropped and called again.
    fn exited(&self) -> BoxFuture<'_, ExitReport>;

    /// Ends the agent, politely for as long as the grace lasts, and removes the place.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ExitReport>;

    /// Everything that another node process needs to find and remove it.
    fn record(&self) -> SandboxRecord;
}

/// A sandbox could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The identity cannot be handed over.
    #[error("the identity of sandbox {0} has a line break or is too long")]
    Identity(SandboxId),
    /// The id was used before.
    #[error("sandbox {0} exists already; every sandbox needs an id of its own")]
    Taken(SandboxId),
    /// No uid is free.
    #[error("all {0} sandboxes of this node are in use; stop one first")]
    Full(u32),
    /// A directory could not be prepared.
    #[error("could not prepare {path} for a sandbox; check that the node may write there and the disk has room")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent could not be started.
    #[error("the agent of a sandbox did not start")]
    Spawn(#[from] SpawnError),
    /// The limits could not be applied.
    #[error("the limits of a sandbox could not be applied")]
    Cgroup(#[from] CgroupError),
    /// The agent ended before it had its identity.
    #[error("the agent of a sandbox ended at once: {0}")]
    Died(ExitReport),
    /// The network refused a connection.
    #[error("the machine could not be connected")]
    Network(#[from] nex_network::NetworkError),
    /// The monitor refused the machine.
    #[error("the machine could not be started")]
    Vmm(#[from] nex_vmm::VmmError),
    /// The guest did not come up as it should.
    #[error("the guest did not come up")]
    Guest(#[from] microvm::GuestError),
    /// The machine runs, but not as it should.
    #[error("the machine runs, but its guest is of no use; it and its monitor said: {console}")]
    NotUp {
        /// The end of what they wrote, one line of text.
        console: String,
        /// What was waited for.
        #[source]
        source: Box<CreateError>,
    },
    /// The node stops.
    #[error("the sandbox was not made because the node stops")]
    Stopped(#[source] io::Error),
    /// No time was left.
    #[error("the agent of a sandbox did not take its identity in time")]
    Late(#[from] Elapsed),
}

/// A file could not be brought into a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The name is unusable.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is another file of this name.
    #[error("the sandbox has another file named {0} already")]
    Taken(String),
    /// Linking and copying failed.
    #[error("could not bring {file} into the sandbox; check that it exists and the disk has room")]
    Failed {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A file name of one part that cannot be mistaken for a path, an option or a hidden file.
pub(crate) fn check_file_name(name: &str) -> Result<(), InvalidName> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let first = name.bytes().next().is_some_and(|byte| !matches!(byte, b'.' | b'-'));
    if first && name.len() <= 200 && name.bytes().all(plain) { Ok(()) } else { Err(InvalidName::of(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_file_names_never_lead_out_of_a_directory() {
        for name in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "-rf", ".hidden", "a b", "\u{e9}"] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
        for name in ["", "..", "a/b", "a.b", "a\nb"] {
            assert!(SandboxId::parse(name).is_err(), "{name:?}");
        }
        assert!(serde_json::from_str::<SandboxId>("\"../../etc\"").is_err());
        assert!(check_file_name("module-1.2_x.wasm").is_ok());
        assert_eq!(SandboxId::parse("A1-b_2").unwrap().as_str(), "A1-b_2");
    }
}

//! Why a jail could not be made.

use std::io;
use std::path::PathBuf;

use crate::confinement::Part;

/// Longest line of a jail's input, bytes: the specification, and the identity.
pub const MAX_LINE: usize = 64 * 1024;

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
    pub(super) fn step<E: Into<io::Error>>(step: &'static str, advice: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Step { step, advice, source: source.into() }
    }
}

//! What can go wrong with a monitor.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use nex_process::{Deadline, Exit, SpawnError};

use crate::kind::VmmKind;

/// A machine could not be started, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The specification cannot be a machine.
    #[error("the machine cannot be made: {0}")]
    Invalid(String),
    /// A file of the machine could not be made or read.
    #[error("could not {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor's process did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The monitor's process ended while it was needed.
    #[error("{vmm} ended ({exit}) while it was asked to {doing}; it said: {said}")]
    Ended {
        /// Which monitor.
        vmm: VmmKind,
        /// How it ended.
        exit: Exit,
        /// What it was to do.
        doing: &'static str,
        /// Its last lines, one line of text.
        said: String,
    },
    /// The monitor refused the request.
    #[error("{vmm} refused {request}: {message}")]
    Refused {
        /// Which monitor.
        vmm: VmmKind,
        /// Method and path, or the name of the command.
        request: String,
        /// Its message, cut to a bounded length.
        message: String,
    },
    /// The monitor's answer is malformed.
    #[error("{vmm} sent a malformed answer: {why}; next: check that the file is really {vmm}, and its version")]
    Malformed {
        /// Which monitor.
        vmm: VmmKind,
        /// What is wrong with the answer.
        why: String,
    },
    /// It was not done in time.
    #[error("the time to {doing} was over")]
    Late {
        /// What was being done.
        doing: &'static str,
    },
    /// This monitor cannot do that.
    #[error("{vmm} cannot {what}")]
    Unsupported {
        /// Which monitor.
        vmm: VmmKind,
        /// What was asked of it.
        what: &'static str,
    },
}

impl VmmError {
    /// Names the file that an operation failed on.
    pub(crate) fn file<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source: source.into() }
    }
}

/// Runs a step until the deadline.
pub(crate) async fn in_time<T>(
    by: Deadline,
    doing: &'static str,
    step: impl Future<Output = Result<T, VmmError>>,
) -> Result<T, VmmError> {
    by.bound(step).await.unwrap_or(Err(VmmError::Late { doing }))
}

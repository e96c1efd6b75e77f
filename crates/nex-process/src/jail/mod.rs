//! The jail that an agent enters before it starts its first thread.
//!
//! ```text
//! node ── stage 1 ──┊── init (pid 1) ── agent (pid 2) ── workload
//!         only waits ┊   reaps, forwards   `enter` returns here
//!         and passes ┊   signals
//!         signals on ┊ everything right of the line is confined and dies with stage 1
//! ```
//!
//! Order: namespaces, root directory, limits, capabilities and identity, Landlock, seccomp, then the fork of the agent. The init is
//! as confined as the agent. Nothing here starts a thread, and the caller must not have started one.
//!
//! **The network** is the namespace that the node started stage 1 in: one of its own where the node can make that, the host's elsewhere.
//!
//! **An image** as root ([`JailSpec::image`]) takes the place of what is seen of the host; everything else is as without one.
//!
//! **Functions** need less than that: an agent that runs some gives up the rest by [`restrict_to_functions`].
//!
//! **Files of the host that are seen**, read-only: `/usr` with its programs and libraries, names and certificates of `/etc`.

mod confine;
mod error;
mod fork;
mod functions;
mod image;
mod landlock;
mod layout;
mod namespaces;
mod overlay;
mod places;
mod privileges;
mod probe;
mod root;
mod seccomp;
mod signals;
mod spec;

use std::fmt;
use std::io::Read;

pub use error::{JailError, MAX_LINE};
pub use fork::KILL_SIGNAL;
pub use functions::restrict_to_functions;
pub use image::{IMAGE_DIRECTORIES, IMAGE_FILES};
pub use layout::Layout;
pub use probe::{detect, probe_main};
pub use spec::{JailSpec, ProcessLimits};

use crate::confinement::{Confinement, Layer, UserLayer};
use confine::confine;

/// The result for the innermost process. Its `Debug` leaves out the identity, a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Entered {
    /// The second line that was read, untouched.
    pub identity: Vec<u8>,
    /// What confines this process now.
    pub report: Confinement,
    /// Where its directories are.
    pub layout: Layout,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").field("report", &self.report).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Reads a [`JailSpec`] and the identity, a line each, confines this process and returns in the innermost one.
///
/// The processes in between never return; they exit with the innermost one's status (128 and the signal, if one ended it).
///
/// # Errors
/// When a step fails or a required layer is missing. This may return in a process that is already half confined: print the
/// error and exit, nothing else.
pub fn enter(mut stdin: impl Read) -> Result<Entered, JailError> {
    signals::restore();
    let (spec, identity) = spec::read(&mut stdin)?;
    let report = confine(&spec)?;
    Ok(Entered { identity, report, layout: Layout::of(&spec) })
}

/// Runs work that needs the process's own `/proc` entries, which a non-dumpable process cannot read.
///
/// The process becomes dumpable meanwhile only if no other process can exploit that: before there is a workload, with a uid or a pid
/// namespace of its own.
pub fn while_visible<T>(report: &Confinement, work: impl FnOnce() -> T) -> T {
    use nix::sys::prctl;
    let alone = report.namespaces == Layer::Held || matches!(report.user, UserLayer::OwnUid { .. });
    let shown = alone && prctl::set_dumpable(true).is_ok();
    let done = work();
    if shown && prctl::set_dumpable(false).is_err() {
        // Cannot happen: the call has no other failure than an unknown argument.
        std::process::abort();
    }
    done
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl;

    use super::*;
    use crate::confinement::{CgroupLayer, LandlockLayer, Mode};

    #[test]
    fn a_process_shows_itself_only_where_it_is_alone_and_only_for_as_long_as_it_has_to() {
        let missing = || Layer::Missing { reason: "a test".to_owned() };
        let confined = |user| Confinement {
            mode: Mode::Plain,
            namespaces: missing(),
            root: missing(),
            user,
            cgroup: CgroupLayer::default(),
            seccomp: Layer::Held,
            landlock: LandlockLayer { abi: 0, reason: None },
            network: missing(),
        };
        let alone = while_visible(&confined(UserLayer::OwnUid { uid: 7 }), prctl::get_dumpable);
        assert_eq!((alone, prctl::get_dumpable()), (Ok(true), Ok(false)));
        let shared = while_visible(&confined(UserLayer::Shared { reason: "a test".to_owned() }), prctl::get_dumpable);
        assert_eq!(shared, Ok(false));
        prctl::set_dumpable(true).unwrap();
    }
}

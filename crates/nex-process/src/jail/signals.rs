//! Signals as programs expect them. Whoever starts a node may have had some ignored, as `nohup` and shells do for what they start in the
//! background, and programs inherit that: a service would not hear of SIGHUP.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Those that others have ignored. No handler is ever set for them before a jail is entered.
const INHERITED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Gives them the action that they have by default.
#[expect(unsafe_code, reason = "the wrapper is unsafe because of handlers")]
pub(super) fn restore() {
    for inherited in INHERITED {
        // SAFETY: no handler is set, and none was.
        let _cannot_fail = unsafe { signal(inherited, SigHandler::SigDfl) };
    }
}

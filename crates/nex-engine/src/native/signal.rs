//! Signals and their names.

use rustix::process::Signal;

const SIGNALS: [(Signal, &str); 19] = [
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::TRAP, "SIGTRAP"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::BUS, "SIGBUS"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::TERM, "SIGTERM"),
    (Signal::XCPU, "SIGXCPU"),
    (Signal::XFSZ, "SIGXFSZ"),
    (Signal::WINCH, "SIGWINCH"),
    (Signal::SYS, "SIGSYS"),
];

/// The name of a signal.
pub(super) fn name_of(number: i32) -> String {
    let name = SIGNALS.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("signal {number}"))
}

/// The signal of this name.
pub(super) fn named(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(_, known)| *known == name).map(|(signal, _)| *signal)
}

#[cfg(test)]
mod tests {
    use nex_protocol::deploy::StopSignal;

    use super::*;

    #[test]
    fn every_stop_signal_can_be_sent() {
        for name in StopSignal::NAMES {
            let signal = named(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(name_of(signal.as_raw()), name);
        }
    }
}

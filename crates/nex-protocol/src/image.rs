//! How the workload of an OCI image is run: written into the image's root by whoever builds that, read there by the agent.

use serde::{Deserialize, Serialize};

/// Where it is in the image, relative to its root.
pub const RUN_FILE: &str = ".nex/run.json";
/// Largest such file, bytes.
pub const MAX_RUN_FILE: u64 = 1024 * 1024;
/// The signal by which an image that names none is asked to end.
pub const STOP_SIGNAL: i32 = 15;

/// What an image says of its program. *Trust:* all of it is the image's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRun {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or program and arguments where there is no entrypoint; those of the deployer take their place.
    pub command: Vec<String>,
    /// `NAME=value`; those of the deployer win.
    pub environment: Vec<String>,
    /// Where it starts, absolute.
    pub directory: String,
    /// Home of the image's user.
    pub home: String,
    /// By which signal it is asked to end.
    pub stop_signal: i32,
}

/// The number of a signal by its name, with or without `SIG`, or its number; of those that an image may name.
#[must_use]
pub fn signal(text: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 11] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("WINCH", 28),
    ];
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let by_name = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    by_name.or_else(|| name.parse().ok().filter(|number| (1..=31).contains(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_a_name_or_a_number() {
        for (text, expected) in [("SIGTERM", 15), ("quit", 3), ("28", 28), ("SIGWINCH", 28), (" sigint ", 2)] {
            assert_eq!(signal(text), Some(expected), "{text}");
        }
        for text in ["", "SIG", "SIGNOPE", "0", "32", "-1", "RTMIN+3"] {
            assert_eq!(signal(text), None, "{text}");
        }
    }
}
